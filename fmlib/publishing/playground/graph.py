"""Networks as the graphs that the playground page computes with, read from what `torch.export` records.

A graph is a list of nodes. The first is the picture, the last gives the logits, and each has its kind, the numbers of
the nodes that it reads, its form (channels, height, width), and what its kind needs. Kinds are those of `layers.mjs`.
Scales and shifts of channels, such as batch norm in eval mode, are folded into the layer before where that is exact.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx, nn

from fmlib.core.errors import FmlibError, require

#: Kinds into which a scale and a shift of the channels can be folded.
FOLDED = ("input", "convolution", "linear", "affine")

#: What a user reads where an operation is not supported.
SUPPORTED = (
    "it has convolutions, linear layers, batch norm, ReLU, ReLU6, SiLU, hardswish, sigmoids, max, average and adaptive "
    "average pooling, sums, products, concatenation, flatten and dropout"
)


@dataclass(frozen=True)
class Value:
    """The output of a node of the graph: its number, its shape without the batch, and zeros to add above and left."""

    index: int
    shape: tuple[int, ...]
    padding: tuple[int, int] | None = None


class Unsupported(FmlibError):
    """The page cannot compute an operation; the message says why."""


def trace(model: nn.Module, images: Tensor) -> fx.GraphModule:
    """The operations that a model applies to images (N, C, H, W), as `torch.export` records them.

    Raises:
        FmlibError: the model does not take such images, or cannot be exported.
    """
    try:
        with torch.no_grad():
            module = torch.export.export(model, (images,), strict=False).module()
    except Exception as error:  # torch's own types vary by its version, and a model may raise anything
        text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        shape, kind = tuple(images.shape), type(error).__name__
        raise FmlibError(f"the model cannot be exported with images of shape {shape}: {kind}: {text[:200]}") from error
    assert isinstance(module, fx.GraphModule)
    for node in list(module.graph.nodes):  # checks of shapes and types, which the pictures have passed
        if "_assert" in str(node.target) and node.op == "call_function":
            module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    return module


def nodes(module: fx.GraphModule, images: Tensor) -> list[dict[str, Any]]:
    """The graph of a traced classifier.

    Args:
        module: from `trace`.
        images: those that it was traced with, (N, C, side, side).

    Returns:
        The nodes. Weights, biases, scales and shifts are tensors in double precision; the scale and the shift of the
        picture, one per channel, are those that the model applies to its pixels first.

    Raises:
        FmlibError: the page lacks one of its operations, or it does not return logits (N, classes).
    """
    builder = _Builder(images)
    values: dict[fx.Node, Any] = {}
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    require(len(inputs) == 1, f"the model takes {len(inputs)} inputs: the page gives it pictures alone")
    for node in module.graph.nodes:
        if node.op == "placeholder":
            ones = torch.ones(images.shape[1]).double()
            values[node] = builder.add("input", [], images.shape[1:], scale=ones, shift=0 * ones)
        elif node.op == "get_attr":
            values[node] = _attribute(module, node.target)
        elif node.op == "call_function":
            values[node] = builder.call(node, values)
            if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
                require(not _views(node), f"the model overwrites a value of which it also uses a view ({node.name})")
                values[node.args[0]] = values[node]
    results = next(node for node in module.graph.nodes if node.op == "output").all_input_nodes
    require(len(results) == 1, f"the model returns {len(results)} tensors: the page needs logits alone")
    shape, logits = _shape(results[0]), values[results[0]]
    fits = isinstance(logits, Value) and not logits.padding
    fits = fits and len(shape) == 2 and shape[0] == len(images) and shape[1] > 1
    require(fits, f"the model returns the shape {shape}: the page needs logits (N, classes)")
    return _folded(_needed(builder.nodes, logits.index))


def _attribute(module: nn.Module, path: str) -> Tensor:
    """A weight or a constant of a module by its dotted name."""
    found: Any = reduce(getattr, path.split("."), module)
    return found.detach()


def _name(node: fx.Node) -> str:
    """The name of an operation, without the underscore of those that overwrite."""
    packet = getattr(node.target, "overloadpacket", node.target)
    return getattr(packet, "__name__", str(packet)).removesuffix("_")


def _views(node: fx.Node) -> list[fx.Node]:
    """Uses of the value that an operation overwrites through another view of it."""
    (source,) = node.all_input_nodes[:1]
    if OPERATIONS.get(_name(source)) in VIEWS:
        return [user for user in source.all_input_nodes[0].users if user is not source]
    return [user for user in source.users if user is not node and OPERATIONS.get(_name(user)) in VIEWS]


def _needed(nodes: list[dict[str, Any]], last: int) -> list[dict[str, Any]]:
    """The nodes that lead to the node `last`."""
    needed = {last}
    for index in range(last, -1, -1):
        if index in needed:
            needed |= set(nodes[index]["inputs"])
    require(0 in needed, "the model's logits do not depend on the picture")
    places = {index: place for place, index in enumerate(sorted(needed))}
    return [nodes[index] | {"inputs": [places[one] for one in nodes[index]["inputs"]]} for index in places]


def _folded(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The nodes, without those that scale and shift the channels of a layer that no other node reads."""
    uses = Counter(index for node in nodes for index in node["inputs"])
    kept: list[dict[str, Any]] = []
    places: list[int] = []
    for node in nodes:
        inputs = [places[index] for index in node["inputs"]]
        if node["kind"] == "affine" and uses[node["inputs"][0]] == 1 and kept[inputs[0]]["kind"] in FOLDED:
            _scale(kept[inputs[0]], node["scale"], node["shift"])
            places.append(inputs[0])
        else:
            kept.append(node | {"inputs": inputs})
            places.append(len(kept) - 1)
    return kept


def _scale(node: dict[str, Any], scale: Tensor, shift: Tensor) -> None:
    """Scale and shift the channels that a node computes."""
    if "weights" not in node:
        node["scale"], node["shift"] = node["scale"] * scale, node["shift"] * scale + shift
        return
    node["weights"] = node["weights"] * scale.view(-1, *[1] * (node["weights"].ndim - 1))
    node["bias"] = shift + node["bias"] * scale if "bias" in node else shift


class _Builder:
    """The nodes so far, and the operations that add to them."""

    def __init__(self, images: Tensor) -> None:
        self.batch = len(images)
        self.nodes: list[dict[str, Any]] = []

    def add(self, kind: str, inputs: Sequence[Value], shape: Sequence[int], **parts: Any) -> Value:
        """Append a node; returns its output."""
        form = [*shape, 1, 1] if len(shape) == 1 else [*shape]
        if len(form) != 3:
            raise Unsupported(f"a value of shape (N, {', '.join(map(str, shape))})")
        parts = {name: part for name, part in parts.items() if part is not None}
        self.nodes.append({"kind": kind, "inputs": [one.index for one in inputs], "form": form} | parts)
        return Value(len(self.nodes) - 1, tuple(shape))

    def call(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        """The output of an operation: a `Value`, or a tensor if it depends on weights alone."""
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        inputs = [values[one] for one in node.all_input_nodes]
        if not any(isinstance(one, Value) for one in inputs):
            return node.target(*args, **kwargs)  # type: ignore[operator]
        if node.target is operator.getitem:
            require(bool(args[1] == 0), "the model uses the indices of a maximum or the statistics of a batch")
            return args[0]
        target: Any = node.target
        name = _name(node)
        try:
            add = OPERATIONS.get(name)
            if add is None:
                raise Unsupported("the page does not have it")
            if any(one.padding for one in inputs if isinstance(one, Value)) and add is not _convolution:
                raise Unsupported("after a pad that no convolution follows")
            schema = target._schema.arguments
            given = {one.name: one.default_value for one in schema if one.has_default_value()}
            given |= dict(zip([one.name for one in schema], args, strict=False)) | kwargs
            return add(self, node, given.pop(schema[0].name), **given)
        except Unsupported as error:
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            place = f" at {stack[-1][0]}" if stack and stack[-1][0] else ""  # an exported program has lost it
            raise FmlibError(f"the playground cannot run the operation {name}{place} ({error}); {SUPPORTED}") from error

    def scaled(self, value: Value, scale: Any, shift: Any) -> Value:
        """A scale and a shift, numbers or tensors with one value per channel at most."""
        parts = {"scale": self.per_channel(value, scale), "shift": self.per_channel(value, shift)}
        return self.add("affine", [value], value.shape, **parts)

    def per_channel(self, value: Value, constant: Any) -> Tensor:
        """A constant as one number per channel of a value."""
        try:
            full = torch.as_tensor(constant).double().broadcast_to((1, *value.shape))[0]
        except RuntimeError as error:
            raise Unsupported("its constant has another shape than one value per channel") from error
        full = full.flatten(1) if full.ndim > 1 else full[:, None]
        if not bool((full == full[:, :1]).all()):
            raise Unsupported("its constant varies within a channel")
        return full[:, 0].clone()


def _shape(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's first output, with the batch."""
    found = node.meta["val"]
    return tuple(int(size) for size in (found[0] if isinstance(found, (tuple, list)) else found).shape)


def _pair(value: Any) -> tuple[int, int]:
    """An argument that may be one number for both axes."""
    numbers = [value] if isinstance(value, int) else list(value)
    return (numbers[0], numbers[-1])


def _convolution(
    graph: _Builder,
    node: fx.Node,
    x: Value,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    transposed: bool = False,
    output_padding: Any = None,
) -> Value:
    if transposed or _pair(dilation) != (1, 1):
        raise Unsupported("transposed" if transposed else f"dilation {_pair(dilation)}")
    if not isinstance(weight, Tensor) or isinstance(bias, Value):
        raise Unsupported("its weights depend on the picture")
    if isinstance(padding, str):
        kernel = weight.shape[2:]
        padding = [(size - 1) // 2 if padding == "same" else 0 for size in kernel]
    before = x.padding or (0, 0)
    return graph.add(
        "convolution",
        [x],
        _shape(node)[1:],
        weights=weight.double(),
        bias=None if bias is None else bias.double(),
        stride=list(_pair(stride)),
        padding=[own + more for own, more in zip(_pair(padding), before, strict=True)],
        groups=groups,
    )


def _pad(graph: _Builder, node: fx.Node, x: Value, pad: Any, mode: str = "constant", value: Any = None) -> Value:
    pads = [*pad, 0, 0, 0, 0][:4]
    if mode != "constant" or value or any(pad[4:]) or min(pads) < 0:
        raise Unsupported("it does not add zeros around the plane")
    return Value(x.index, _shape(node)[1:], (pads[2], pads[0]))


def _linear(graph: _Builder, node: fx.Node, x: Value, weight: Tensor, bias: Tensor | None) -> Value:
    if not isinstance(weight, Tensor) or len(x.shape) != 1:
        raise Unsupported(f"on the shape (N, {', '.join(map(str, x.shape))})")
    bias = None if bias is None else bias.double()
    return graph.add("linear", [x], _shape(node)[1:], weights=weight.double(), bias=bias)


def _addmm(graph: _Builder, node: fx.Node, x: Tensor, mat1: Value, mat2: Tensor, beta: Any, alpha: Any) -> Value:
    if not isinstance(mat1, Value) or not isinstance(mat2, Tensor) or (beta, alpha) != (1, 1):
        raise Unsupported("it is no linear layer")
    return _linear(graph, node, mat1, mat2.T, x)


def _batch_norm(
    graph: _Builder,
    node: fx.Node,
    x: Value,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    eps: float,
    training: bool = False,
    momentum: float = 0.0,
    cudnn_enabled: bool = False,
) -> Value:
    if training or running_mean is None or running_var is None:
        raise Unsupported("batch norm in training mode, or without running statistics: call model.eval() before export")
    # in double precision: in single precision, processors differ in the last bit
    scale = 1 / torch.sqrt(running_var.double() + eps)
    scale = scale if weight is None else weight.double() * scale
    shift = (0 if bias is None else bias.double()) - running_mean.double() * scale
    return graph.add("affine", [x], x.shape, scale=scale, shift=shift)


def _clip(low: Any, high: Any) -> Callable[..., Value]:
    """ReLU and its relatives: bounds are numbers, or names of arguments."""

    def add(graph: _Builder, node: fx.Node, x: Value, **given: Any) -> Value:
        least, most = (given[bound] if isinstance(bound, str) else bound for bound in (low, high))
        if least is None:
            raise Unsupported("without a lower bound")
        return graph.add("clip", [x], x.shape, low=float(least), high=None if most is None else float(most))

    return add


def _elementwise(kind: str) -> Callable[..., Value]:
    return lambda graph, node, x: graph.add(kind, [x], x.shape)


def _windows(size: int, count: int, kernel: int, stride: int, padding: int, padded: bool) -> list[list[int]]:
    """First place, place after the last, and divisor of each window along an axis."""
    found = []
    for start in range(-padding, -padding + count * stride, stride):
        stop = min(start + kernel, size + padding)
        first, last = max(start, 0), min(stop, size)
        found.append([first, last, stop - start if padded else last - first])
    return found


def _pool(
    graph: _Builder,
    node: fx.Node,
    x: Value,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any = 1,
    ceil_mode: bool = False,
    count_include_pad: bool | None = None,
    divisor_override: int | None = None,
) -> Value:
    if _pair(dilation) != (1, 1) or divisor_override is not None:
        raise Unsupported("dilated, or with a divisor of its own")
    shape = _shape(node)[1:]
    sizes = zip(x.shape[1:], shape[1:], _pair(kernel_size), _pair(stride or kernel_size), _pair(padding), strict=True)
    rows, columns = (_windows(*one, bool(count_include_pad)) for one in sizes)
    kind = "maximum" if count_include_pad is None else "mean"
    return graph.add(kind, [x], shape, rows=rows, columns=columns)


def _adaptive(graph: _Builder, node: fx.Node, x: Value, output_size: Any) -> Value:
    shape = _shape(node)[1:]
    rows, columns = (
        [[i * size // count, -(-(i + 1) * size // count)] for i in range(count)]
        for size, count in zip(x.shape[1:], shape[1:], strict=True)
    )
    rows, columns = ([[start, stop, stop - start] for start, stop in axis] for axis in (rows, columns))
    return graph.add("mean", [x], shape, rows=rows, columns=columns)


def _mean(graph: _Builder, node: fx.Node, x: Value, dim: Any, keepdim: bool, dtype: Any = None) -> Value:
    if len(x.shape) != 3 or sorted(one % 4 for one in dim or ()) != [2, 3]:
        raise Unsupported("it is not the mean of each channel")
    rows, columns = ([[0, size, size]] for size in x.shape[1:])
    pooled = graph.add("mean", [x], (x.shape[0], 1, 1), rows=rows, columns=columns)
    return Value(pooled.index, _shape(node)[1:])


def _sum(graph: _Builder, node: fx.Node, x: Any, other: Any, alpha: float = 1) -> Value:
    if isinstance(x, Value) and isinstance(other, Value):
        if x.shape != other.shape or alpha != 1:
            raise Unsupported(f"of the shapes {x.shape} and {other.shape}")
        return graph.add("sum", [x, other], x.shape)
    if isinstance(x, Value):
        return graph.scaled(x, 1, torch.as_tensor(other).double() * alpha)
    return graph.scaled(other, alpha, x)


def _difference(graph: _Builder, node: fx.Node, x: Any, other: Any, alpha: float = 1) -> Value:
    if isinstance(other, Value):
        if isinstance(x, Value):
            other = graph.scaled(other, -alpha, 0)
            return _sum(graph, node, x, other)
        return graph.scaled(other, -alpha, x)
    return graph.scaled(x, 1, -alpha * torch.as_tensor(other).double())


def _reversed_difference(graph: _Builder, node: fx.Node, x: Any, other: Any, alpha: float = 1) -> Value:
    return _difference(graph, node, other, x, alpha)


def _product(graph: _Builder, node: fx.Node, x: Any, other: Any) -> Value:
    if not isinstance(x, Value) or not isinstance(other, Value):
        value, constant = (x, other) if isinstance(x, Value) else (other, x)
        return graph.scaled(value, constant, 0)
    one, second = (x, other) if _shape(node)[1:] == x.shape else (other, x)
    if second.shape not in (one.shape, (one.shape[0], 1, 1)) or _shape(node)[1:] != one.shape:
        raise Unsupported(f"of the shapes {x.shape} and {other.shape}")
    return graph.add("product", [one, second], one.shape)


def _quotient(graph: _Builder, node: fx.Node, x: Any, other: Any, rounding_mode: Any = None) -> Value:
    if isinstance(other, Value) or rounding_mode:
        raise Unsupported("by a value that depends on the picture, or rounded")
    return graph.scaled(x, 1 / torch.as_tensor(other).double(), 0)


def _concatenation(graph: _Builder, node: fx.Node, x: list[Any], dim: int) -> Value:
    if dim % len(_shape(node)) != 1 or not all(isinstance(one, Value) for one in x):
        raise Unsupported("it does not join channels")
    return graph.add("concatenation", x, _shape(node)[1:])


def _reshape(graph: _Builder, node: fx.Node, x: Value, **given: Any) -> Value:
    batch, *shape = _shape(node)
    if batch != graph.batch or len(shape) not in (1, 3):
        raise Unsupported(f"from (N, {', '.join(map(str, x.shape))}) to {_shape(node)}")
    if len(x.shape) == 3 and len(shape) == 1 and x.shape[1:] != (1, 1):
        return graph.add("flatten", [x], shape)
    if tuple(shape) != x.shape and (shape[0] != x.shape[0] or shape[1:] not in ([], [1, 1])):
        raise Unsupported(f"from (N, {', '.join(map(str, x.shape))}) to {_shape(node)}")
    return Value(x.index, tuple(shape))


def _same(graph: _Builder, node: fx.Node, x: Value, train: bool = False, **given: Any) -> Value:
    if train:
        raise Unsupported("dropout in training mode: call model.eval() before export")
    return Value(x.index, _shape(node)[1:])


def _copy(graph: _Builder, node: fx.Node, x: Value, **given: Any) -> Value:
    return Value(x.index, x.shape)


#: Operation of torch, without the underscore of those that overwrite -> what it adds to the graph.
OPERATIONS: dict[str, Callable[..., Value]] = {
    "conv2d": _convolution,
    "convolution": _convolution,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "linear": _linear,
    "addmm": _addmm,
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "relu": _clip(0, None),
    "relu6": _clip(0, 6),
    "hardtanh": _clip("min_val", "max_val"),
    "clamp": _clip("min", "max"),
    "clamp_min": _clip("min", None),
    **{kind: _elementwise(kind) for kind in ("sigmoid", "silu", "hardsigmoid", "hardswish")},
    "max_pool2d": _pool,
    "max_pool2d_with_indices": _pool,
    "avg_pool2d": _pool,
    "adaptive_avg_pool2d": _adaptive,
    "_adaptive_avg_pool2d": _adaptive,
    "mean": _mean,
    "add": _sum,
    "sub": _difference,
    "rsub": _reversed_difference,
    "mul": _product,
    "div": _quotient,
    "cat": _concatenation,
    **dict.fromkeys(("flatten", "view", "reshape", "_unsafe_view", "squeeze", "unsqueeze"), _reshape),
    **dict.fromkeys(("dropout", "feature_dropout", "contiguous", "detach", "alias", "to"), _same),
    **dict.fromkeys(("clone", "_to_copy"), _copy),
}
#: Those whose output may share the memory of their input.
VIEWS = (_reshape, _same)
