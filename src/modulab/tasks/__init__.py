"""Modular tasks."""
