"""Set-up and demonstration. Run from the top of the checkout: `python3 -m deploy.setup`, `python -m deploy.demo`."""
