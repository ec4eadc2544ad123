"""Several processes as one run: joining them, sharding networks over them, agreeing on what one of them knows."""
