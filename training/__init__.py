import logging

# It warns on some processors, at its import, that a faster kernel is not installed, which nobody can act on here.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
