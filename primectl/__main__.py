"""`python -m primectl`."""

from primectl.main import main

if __name__ == "__main__":
    main()
