"""`python -m mvssl`, and `accelerate launch -m mvssl`."""

from mvssl.cli.main import main

if __name__ == "__main__":
    main()
