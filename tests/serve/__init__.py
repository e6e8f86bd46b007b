"""Tests of the serving engine; `world` has its adapters, `alone` what each of them answers."""
