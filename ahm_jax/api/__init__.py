"""What `import ahm_jax` offers, to be used from Python, and the command `ahm`."""
