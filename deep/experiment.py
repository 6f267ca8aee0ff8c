"""One run from its configuration: data of the nodes, engine, round loop, result file.

`deep.reproduce`, `deep.campaign` and ``benchmarks/deep_gpu.py`` all train through `run_experiment`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deep.config import Config
from deep.data.cifar10 import Images, Progress, load_images, load_test_images
from deep.data.partition import balanced_subset, partition
from deep.distributed import Communicator
from deep.engines.make import available_cores, engine_for, find_device, make_engine
from deep.engines.memory import check_memory, check_round
from deep.local_sgd import Snapshot, run
from deep.resnet import Architecture, initial_parameters
from deep.results import files
from deep.run_folder import finished_summary
from deep.schedule import Row
from deep.stopping import Stopped
from deep.tensorboard import open_log
from theory.support.errors import UserError


@dataclass
class Data:
    """The images at a place: the whole training set, and the test set where there is one."""

    training: Images
    test: Images | None
    _chosen: dict[tuple[int | None, int], tuple[Images, str]] = field(default_factory=dict)

    def chosen(self, config: Config) -> tuple[Images, str]:
        """The training images of a run, with its pixels, and their fingerprint."""
        key = (config.subset, config.seed if config.subset else 0)
        if key not in self._chosen:
            images = self.training.take(
                balanced_subset(self.training.labels, config.subset, config.seed)
            )
            self._chosen = {key: (images, images.fingerprint)}
        images, fingerprint = self._chosen[key]
        return replace(images, pixels=config.pixels), fingerprint

    def shards(self, config: Config) -> list[np.ndarray]:
        """The images of every node of a run; `UserError` when they cannot be dealt out."""
        return _shards(config, self.chosen(config)[0])


def _shards(config: Config, images: Images) -> list[np.ndarray]:
    shards = partition(
        images.labels,
        config.n_nodes,
        config.regime,
        config.similarity if config.similarity is not None else 0.0,
        config.seed,
        shards_per_node=config.shards_per_node or 1,
    )
    fewest = min(map(len, shards))
    if config.batches == "without-replacement" and config.batch_size > fewest:
        raise UserError(
            f"--batch-size is {config.batch_size}, allowed: 1 to {fewest}, the images of a node; "
            "more only with --batches with-replacement"
        )
    return shards


@dataclass(frozen=True)
class Machine:
    """Where and how a run computes; nothing here changes its numbers beyond rounding."""

    device: str = "auto"
    threads: int | None = None
    compile_model: bool = False
    cuda_graphs: bool = False
    channels_last: bool = True
    communicator: Communicator = field(default_factory=Communicator)


def load_data(
    path: Path,
    *,
    name: str | None = None,
    download: bool = False,
    cache: Path | None = None,
    progress: Callable[[str], Progress] | None = None,
    communicator: Communicator | None = None,
) -> Data:
    """The images at ``path``; one process a machine downloads or decodes, the others wait.

    Raises `UserError` as `load_images` does, and when another process finds other images.
    """
    group = communicator or Communicator()
    data: Data | None = None
    for turn in (True, False):
        if turn == (os.environ.get("LOCAL_RANK", "0") == "0"):
            training = load_images(
                path,
                name=name,
                download=download,
                cache=cache,
                progress=progress("training images") if progress else None,
            )
            test = load_test_images(
                path,
                name=name,
                cache=cache,
                progress=progress("test images") if progress else None,
            )
            data = Data(training, test)
        group.share(None)
    assert data is not None
    if group.size > 1:
        mine = data.training.fingerprint
        if group.share(mine) != mine:
            raise UserError(f"process {group.rank} finds other images at {path} than process 0")
    return data


def run_experiment(
    config: Config,
    data: Data,
    folder: Path,
    machine: Machine,
    *,
    head: dict[str, Any],
    result: Path | None = None,
    checkpoint_minutes: float = 5.0,
    seconds: float = math.inf,
    report: Callable[[Snapshot], None] | None = None,
    warn: Callable[[str], None] | None = None,
    tensorboard: bool = False,
    energy: bool = False,
) -> dict[str, Any]:
    """Train as ``config`` says, or go on from what ``folder`` holds; the summary.

    ``head`` is the provenance of a run that begins here. The small ``result`` file is written however the
    run ends, after ``seconds`` or an interruption too: its status is then ``unfinished``. Raises what
    `deep.local_sgd.run` and `make_engine` raise.
    """
    images, fingerprint = data.chosen(config)
    config = replace(config, data_name=images.name, data_fingerprint=fingerprint)
    communicator = machine.communicator
    writer = communicator.rank == 0
    done = communicator.share(finished_summary(folder, asdict(config)) if writer else None)
    if done is not None:
        if writer and result and not result.exists():
            files.write_result(result, head, folder)
        found: dict[str, Any] = done
        return found
    shards = _shards(config, images)
    architecture = Architecture(
        config.width,
        images.images.shape[2],
        max(10, int(images.labels.max()) + 1),
        norm_affine=config.norm_affine,
    )
    n_local = len(communicator.nodes(config.n_nodes))
    place = find_device(machine.device)
    check_round(n_local, config.local_steps, config.batch_size)
    kind = engine_for(config.engine, place, config.precision)
    if place.type == "cpu":
        check_memory(
            architecture,
            n_local=n_local,
            batch_size=config.batch_size,
            engine=kind,
            precision=config.precision,
            threads=machine.threads or available_cores(),
        )
    engine = make_engine(
        config.engine,
        architecture,
        images,
        n_nodes=config.n_nodes,
        n_local=n_local,
        step_size=config.step_size,
        device=machine.device,
        precision=config.precision,
        threads=machine.threads,
        communicator=communicator,
        compile_model=machine.compile_model,
        cuda_graphs=machine.cuda_graphs,
        channels_last=machine.channels_last,
    )
    if engine.name == "simd":
        # It has threads of its own. PyTorch only adds up models here, and on a busy machine the
        # barrier of a second thread costs ten times the sum.
        torch.set_num_threads(1)
    log: Callable[[Row], None] | None = None
    try:
        if tensorboard and writer:
            log = open_log(folder, config.local_steps)
        options: dict[str, Any] = {"warn": warn} if warn else {}
        try:
            summary = run(
                replace(config, engine=engine.name),
                engine,
                shards,
                initial_parameters(architecture, config.seed),
                folder,
                test=data.test,
                checkpoint_minutes=checkpoint_minutes,
                provenance=head,
                report=report,
                observe=log,
                seconds=seconds,
                energy=energy,
                **options,
            )
        except Stopped:
            if writer and result:
                files.write_result(result, head, folder)
            raise
        if writer and result:
            files.write_result(result, head, folder)
        return summary
    finally:
        engine.close()
