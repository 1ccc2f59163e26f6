"""Native training steps: C++ generated from the traced step of one member."""
