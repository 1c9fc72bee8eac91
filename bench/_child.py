"""The process that measures one opponent. Its own processes import this file again, so there is nothing in it."""

if __name__ == "__main__":
    import sys

    from bench._harness import measure_here

    measure_here(*sys.argv[1:])
