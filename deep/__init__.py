"""The deep experiment: Local SGD on CIFAR-10 with ResNet18."""

# So that Ctrl-C during the imports of a command is no traceback.
import theory.support.interrupts  # noqa: F401
