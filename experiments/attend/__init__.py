"""Where does each head look? Read page.py."""
