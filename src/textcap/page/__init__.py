"""A page to listen to sounds and compare what captioners say of them, and blind votes on such a page."""
