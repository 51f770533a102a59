"""Files that the product shares with others: IDR cameras, PoRF matches, views, poses, cases."""
