"""The live dashboard: an application of the library, for operators."""
