"""Measures of trained networks, as pure functions over populations."""
