"""The names of the files in checkpoint and adapter folders that more than one room reads or writes."""

CARD = "README.md"
# The facts of a training run and of a conversion, which the card of a published model tells.
RUN_FACTS = "training_run.json"
CONVERSION_REPORT = "conversion_report.json"
# The vocabulary and the temperature of label scores, which `microemo calibrate` writes.
CALIBRATION = "label_calibration.json"
# PEFT's names.
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
# The configuration that an adapter was trained with, with its config_overrides. As `config.json` it would pass for that of
# a whole checkpoint.
ADAPTER_MODEL_CONFIG = "microemo_config.json"

# The image Q-Former's queries are a parameter of the visual encoder, which holds the frozen image encoder, too. PEFT does not
# save them; an adapter of a training run holds them.
IMAGE_QUERIES = "visual_encoder.query_tokens"
