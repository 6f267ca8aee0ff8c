"""Eight numbers at a time inside Numba functions.

Local SGD with batch 8 puts eight images side by side: the innermost axis of every activation is
the image, so one vector holds the same pixel of eight images and no operation ever crosses
lanes. Numba's own vectoriser does not keep a register tile of a convolution in registers, so this
module gives its functions an explicit vector of ``LANES`` floats. LLVM maps it to what the
processor has (AVX2: one register; AVX-512: half of one; NEON: two), and no C++ compiler is needed.

A wide vector is two vectors side by side: two pixels or two channels. It fills a register of
AVX-512, which has 32 of them, so that larger tiles fit. Lanes never mix: narrow and wide code give
the same bits.

All functions below may be called only from ``@njit`` code.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 8
#: Whether the processor has 32 registers of 64 bytes; with less, wide tiles would spill.
_AVX512 = bool(binding.get_host_cpu_features().get("avx512f", False))


class Vector(types.Type):
    """Numba type of ``lanes`` floats of one precision: ``LANES``, or twice as many when wide."""

    def __init__(self, dtype: types.Float, lanes: int = LANES) -> None:
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vector({dtype}, {lanes})")


def _llvm_type(vector: Vector) -> ir.VectorType:
    element = ir.FloatType() if vector.dtype == types.float32 else ir.DoubleType()
    return ir.VectorType(element, vector.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, _llvm_type(vector))


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Pointer to ``array[index]``, unchecked: the callers own their bounds."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def _splat(builder: Any, vector: Vector, scalar: Any) -> Any:
    kind = _llvm_type(vector)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.IntType(32)(0))
    return _shuffle(builder, first, ir.Constant(kind, ir.Undefined), [0] * vector.lanes)


def _shuffle(builder: Any, a: Any, b: Any, order: list[int]) -> Any:
    """Lanes of ``a`` and ``b``, the latter numbered on from the former, in the given order."""
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order)
    return builder.shuffle_vector(a, b, mask)


def _load(
    context: Any,
    builder: Any,
    vector: Vector,
    array_type: Any,
    array: Any,
    index: Any,
) -> Any:
    kind = _llvm_type(vector)
    pointer = _address(context, builder, array_type, array, index)
    size = 4 if kind.element == ir.FloatType() else 8
    return builder.load(builder.bitcast(pointer, kind.as_pointer()), align=size)


def _call(builder: Any, name: str, kind: Any, args: list[Any]) -> Any:
    """Call the LLVM vector intrinsic ``llvm.<name>`` on vectors of type ``kind``."""
    suffix = "f32" if kind.element == ir.FloatType() else "f64"
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(kind, [kind] * len(args)),
        f"llvm.{name}.v{kind.count}{suffix}",
    )
    return builder.call(function, args)


@intrinsic
def load(typingctx, array, index):  # type: ignore[no-untyped-def]
    """``array[index : index + LANES]`` of a contiguous float array."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _load(context, builder, signature.return_type, signature.args[0], *args)

    return Vector(array.dtype)(array, types.intp), codegen


@intrinsic
def store(typingctx, array, index, vector):  # type: ignore[no-untyped-def]
    """``array[index : index + LANES] = vector``."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        kind = _llvm_type(signature.args[2])
        pointer = _address(context, builder, signature.args[0], args[0], args[1])
        size = 4 if kind.element == ir.FloatType() else 8
        builder.store(args[2], builder.bitcast(pointer, kind.as_pointer()), align=size)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), codegen


@intrinsic
def broadcast(typingctx, array, index):  # type: ignore[no-untyped-def]
    """A vector whose lanes all hold ``array[index]``."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = _address(context, builder, signature.args[0], args[0], args[1])
        return _splat(builder, signature.return_type, builder.load(pointer))

    return Vector(array.dtype)(array, types.intp), codegen


@intrinsic
def zeros_like(typingctx, array):  # type: ignore[no-untyped-def]
    """A vector of zeros in the precision of ``array``."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return ir.Constant(_llvm_type(signature.return_type), None)

    return Vector(array.dtype)(array), codegen


@intrinsic
def fma(typingctx, a, b, c):  # type: ignore[no-untyped-def]
    """``a * b + c``, rounded once."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _call(builder, "fma", _llvm_type(signature.return_type), list(args))

    return a(a, a, a), codegen


def _binary(operation: str):  # type: ignore[no-untyped-def]
    @intrinsic
    def apply(typingctx, a, b):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return getattr(builder, operation)(*args)

        return a(a, a), codegen

    return apply


add = _binary("fadd")
subtract = _binary("fsub")
multiply = _binary("fmul")
divide = _binary("fdiv")


@intrinsic
def relu(typingctx, a):  # type: ignore[no-untyped-def]
    """``max(a, 0)`` in every lane; a NaN stays a NaN, so that divergence is seen."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        zero = ir.Constant(_llvm_type(signature.return_type), None)
        return builder.select(builder.fcmp_ordered("<=", args[0], zero), zero, args[0])

    return a(a), codegen


@intrinsic
def where_positive(typingctx, condition, a):  # type: ignore[no-untyped-def]
    """``a`` where ``condition > 0``, else 0."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        zero = ir.Constant(_llvm_type(signature.return_type), None)
        return builder.select(builder.fcmp_ordered(">", args[0], zero), args[1], zero)

    return a(a, a), codegen


@intrinsic
def inverse_root(typingctx, a):  # type: ignore[no-untyped-def]
    """``1 / sqrt(a)``, both operations correctly rounded."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        kind = _llvm_type(signature.return_type)
        one = ir.Constant(kind, [1.0] * kind.count)
        return builder.fdiv(one, _call(builder, "sqrt", kind, [args[0]]))

    return a(a), codegen


@intrinsic
def splat_like(typingctx, a, scalar):  # type: ignore[no-untyped-def]
    """``scalar`` in every lane, in the precision of the vector ``a``."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        value = context.cast(builder, args[1], signature.args[1], signature.return_type.dtype)
        return _splat(builder, signature.return_type, value)

    return a(a, scalar), codegen


@intrinsic
def double(typingctx, a):  # type: ignore[no-untyped-def]
    """The numbers of the vector ``a``, in float64."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        kind = _llvm_type(signature.return_type)
        return args[0] if args[0].type == kind else builder.fpext(args[0], kind)

    return Vector(types.float64, a.lanes)(a), codegen


@intrinsic
def total(typingctx, a):  # type: ignore[no-untyped-def]
    """Sum of the lanes, by halves: always in the same order."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        kind = _llvm_type(signature.args[0])
        undefined = ir.Constant(kind, ir.Undefined)
        value, half = args[0], LANES // 2
        while half:
            order = [(lane + half) % LANES for lane in range(LANES)]
            value = builder.fadd(value, _shuffle(builder, value, undefined, order))
            half //= 2
        return builder.extract_element(value, ir.IntType(32)(0))

    return a.dtype(a), codegen


@intrinsic
def wide_fits(typingctx, array):  # type: ignore[no-untyped-def]
    """Whether tiles of wide vectors in the precision of ``array`` stay in registers: a constant."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        fits = _AVX512 and signature.args[0].dtype == types.float32
        return context.get_constant(types.boolean, fits)

    return types.boolean(array), codegen


@intrinsic
def load_wide(typingctx, array, index):  # type: ignore[no-untyped-def]
    """``array[index : index + 2 * LANES]``."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _load(context, builder, signature.return_type, signature.args[0], *args)

    return Vector(array.dtype, 2 * LANES)(array, types.intp), codegen


@intrinsic
def load_pair(typingctx, array, first, second):  # type: ignore[no-untyped-def]
    """A wide vector of the vectors at ``first`` and at ``second``."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        half = Vector(signature.args[0].dtype)
        a = _load(context, builder, half, signature.args[0], args[0], args[1])
        b = _load(context, builder, half, signature.args[0], args[0], args[2])
        return _shuffle(builder, a, b, list(range(2 * LANES)))

    return Vector(array.dtype, 2 * LANES)(array, types.intp, types.intp), codegen


@intrinsic
def load_twice(typingctx, array, index):  # type: ignore[no-untyped-def]
    """A wide vector whose halves are both the vector at ``index``."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        half = Vector(signature.args[0].dtype)
        a = _load(context, builder, half, signature.args[0], *args)
        return _shuffle(builder, a, a, [*range(LANES), *range(LANES)])

    return Vector(array.dtype, 2 * LANES)(array, types.intp), codegen


@intrinsic
def broadcast_wide(typingctx, array, index):  # type: ignore[no-untyped-def]
    """A wide vector whose lanes all hold ``array[index]``."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = _address(context, builder, signature.args[0], args[0], args[1])
        return _splat(builder, signature.return_type, builder.load(pointer))

    return Vector(array.dtype, 2 * LANES)(array, types.intp), codegen


@intrinsic
def wide_zeros_like(typingctx, array):  # type: ignore[no-untyped-def]
    """A wide vector of zeros in the precision of ``array``."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return ir.Constant(_llvm_type(signature.return_type), None)

    return Vector(array.dtype, 2 * LANES)(array), codegen


def _half(first: int):  # type: ignore[no-untyped-def]
    @intrinsic
    def take(typingctx, wide):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return _shuffle(builder, args[0], args[0], list(range(first, first + LANES)))

        return Vector(wide.dtype)(wide), codegen

    return take


low_half, high_half = _half(0), _half(LANES)


@intrinsic
def plain(typingctx, value):  # type: ignore[no-untyped-def]
    """The number ``value`` with its being a literal forgotten.

    Numba compiles a function anew for every literal it is called with; kernels called with
    ``plain`` numbers are compiled once.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return context.cast(builder, args[0], signature.args[0], signature.return_type)

    return types.unliteral(value)(value), codegen


@intrinsic
def transpose(typingctx, a, b, c, d, e, f, g, h):  # type: ignore[no-untyped-def]
    """Eight vectors as the rows of a square: its columns, a tuple."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        rows = list(args)
        # Squares of one, two, four lanes change places within ever larger groups of rows.
        for half in (1, 2, 4):
            first = [
                lane if lane // half % 2 == 0 else LANES + lane - half for lane in range(LANES)
            ]
            second = [
                lane + half if lane // half % 2 == 0 else LANES + lane for lane in range(LANES)
            ]
            rows = [
                _shuffle(
                    builder,
                    rows[k],
                    rows[k + half],
                    first,
                )
                if k // half % 2 == 0
                else _shuffle(builder, rows[k - half], rows[k], second)
                for k in range(LANES)
            ]
        return context.make_tuple(builder, signature.return_type, rows)

    return types.UniTuple(a, LANES)(*[a] * LANES), codegen
