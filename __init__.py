"""MicroEmo: open, explainable emotion recognition from video dialogue."""
