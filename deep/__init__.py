"""The deep experiment: Local SGD on CIFAR-10 with ResNet18."""

# So that Ctrl-C during the imports of a command is no traceback, nor a missing package.
import theory.support.interrupts  # noqa: F401
from theory.support.extras import need

# Others import a module of deep that needs neither: the figures read the set-up of its presets.
need("deep", "torch", "PIL", commands=("deep", "campaign"))
