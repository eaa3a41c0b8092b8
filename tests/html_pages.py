"""Reads a page as a browser would: its elements, and whether each was closed."""

from html.parser import HTMLParser

VOID = {"meta", "input", "br"}


class Page(HTMLParser):
    """The elements of a page as (tag, attributes, text), and whether every tag was closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.balanced = [], [], True
        self.text = text
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        self.balanced &= bool(self.open) and self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2] += data

    def all(self, tag, **attrs):
        return [e for e in self.elements if e[0] == tag and attrs.items() <= e[1].items()]

    def texts(self, tag):
        return [element[2] for element in self.all(tag)]
