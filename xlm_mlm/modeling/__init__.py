"""Pieces of the network: attention masks, rotary tables, selection of positions."""
