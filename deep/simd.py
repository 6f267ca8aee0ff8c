"""Eight numbers at a time inside Numba functions.

Local SGD with batch 8 puts eight images side by side: the innermost axis of every activation is
the image, so one vector holds the same pixel of eight images and no operation ever crosses
lanes. Numba's own vectoriser does not keep a register tile of a convolution in registers, so this
module gives its functions an explicit vector of ``LANES`` floats. LLVM maps it to what the
processor has (AVX2: one register; AVX-512: half of one; NEON: two), and no C++ compiler is needed.

All functions below may be called only from ``@njit`` code.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 8


class Vector(types.Type):
    """Numba type of ``LANES`` floats of one precision."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype})")


def _llvm_type(dtype: types.Float) -> ir.VectorType:
    return ir.VectorType(ir.FloatType() if dtype == types.float32 else ir.DoubleType(), LANES)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, _llvm_type(vector.dtype))


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Pointer to ``array[index]``, unchecked: the callers own their bounds."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def _splat(builder: Any, vector: Vector, scalar: Any) -> Any:
    kind = _llvm_type(vector.dtype)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.IntType(32)(0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), mask)


def _call(builder: Any, name: str, kind: Any, args: list[Any]) -> Any:
    """Call the LLVM vector intrinsic ``llvm.<name>`` on vectors of type ``kind``."""
    suffix = "f32" if kind.element == ir.FloatType() else "f64"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind] * len(args)), f"llvm.{name}.v{LANES}{suffix}"
    )
    return builder.call(function, args)


@intrinsic
def load(typingctx, array, index):  # type: ignore[no-untyped-def]
    """``array[index : index + LANES]`` of a contiguous float array."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        kind = _llvm_type(signature.return_type.dtype)
        pointer = _address(context, builder, signature.args[0], args[0], args[1])
        size = 4 if kind.element == ir.FloatType() else 8
        return builder.load(builder.bitcast(pointer, kind.as_pointer()), align=size)

    return Vector(array.dtype)(array, types.intp), codegen


@intrinsic
def store(typingctx, array, index, vector):  # type: ignore[no-untyped-def]
    """``array[index : index + LANES] = vector``."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        kind = _llvm_type(signature.args[2].dtype)
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
        return ir.Constant(_llvm_type(signature.return_type.dtype), None)

    return Vector(array.dtype)(array), codegen


@intrinsic
def fma(typingctx, a, b, c):  # type: ignore[no-untyped-def]
    """``a * b + c``, rounded once."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _call(builder, "fma", _llvm_type(signature.return_type.dtype), list(args))

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
        zero = ir.Constant(_llvm_type(signature.return_type.dtype), None)
        return builder.select(builder.fcmp_ordered("<=", args[0], zero), zero, args[0])

    return a(a), codegen


@intrinsic
def where_positive(typingctx, condition, a):  # type: ignore[no-untyped-def]
    """``a`` where ``condition > 0``, else 0."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        zero = ir.Constant(_llvm_type(signature.return_type.dtype), None)
        return builder.select(builder.fcmp_ordered(">", args[0], zero), args[1], zero)

    return a(a, a), codegen


@intrinsic
def inverse_root(typingctx, a):  # type: ignore[no-untyped-def]
    """``1 / sqrt(a)``, both operations correctly rounded."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        kind = _llvm_type(signature.return_type.dtype)
        one = ir.Constant(kind, [1.0] * LANES)
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
def total(typingctx, a):  # type: ignore[no-untyped-def]
    """Sum of the lanes, by halves: always in the same order."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        kind = _llvm_type(signature.args[0].dtype)
        undefined = ir.Constant(kind, ir.Undefined)
        value, half = args[0], LANES // 2
        while half:
            order = [(lane + half) % LANES for lane in range(LANES)]
            mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), order)
            value = builder.fadd(value, builder.shuffle_vector(value, undefined, mask))
            half //= 2
        return builder.extract_element(value, ir.IntType(32)(0))

    return a.dtype(a), codegen
