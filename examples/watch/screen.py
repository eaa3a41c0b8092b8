"""As much of a terminal as the commands here use: lines that are written over, and colours."""

import re

_PIECES = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b[^\[]|([^\x1b])", re.DOTALL)
_PLAIN = "\x1b[0m"


class Screen:
    """Endless downwards; a character and its style in each place."""

    def __init__(self) -> None:
        self.lines: list[list[tuple[str, str]]] = [[]]
        self.row = self.column = 0
        self.style = ""

    def feed(self, output: str) -> None:
        """Write what a program sent."""
        for arguments, command, char in _PIECES.findall(output):
            if char:
                self._put(char)
            elif command:
                self._obey(command, arguments)

    def text(self) -> str:
        """What is to be seen, text with codes for styles, without empty lines at its end."""
        lines = ["".join(self._codes(line)).rstrip() for line in self.lines]
        return re.sub(r"(\s|\x1b\[0m)+\Z", _PLAIN, "\n".join(lines))

    def _codes(self, line: list[tuple[str, str]]) -> list[str]:
        pieces, last = [], ""
        for char, style in line:
            if style != last:
                pieces.append(_PLAIN + style)
            last = style
            pieces.append(char)
        return [*pieces, _PLAIN] if last else pieces

    def _put(self, char: str) -> None:
        if char == "\n":
            self.row, self.column = self.row + 1, 0
        elif char == "\r":
            self.column = 0
        elif char >= " ":
            line = self._line()
            line.extend([(" ", "")] * (self.column + 1 - len(line)))
            line[self.column] = (char, self.style)
            self.column += 1
        self._line()

    def _obey(self, command: str, arguments: str) -> None:
        number = int(arguments) if arguments.isdigit() else 1
        if command == "m":
            plain = arguments in ("", "0")
            self.style = "" if plain else f"{self.style}\x1b[{arguments}m"
        elif command == "A":
            self.row = max(self.row - number, 0)
        elif command == "B":
            self.row += number
        elif command == "C":
            self.column += number
        elif command == "D":
            self.column = max(self.column - number, 0)
        elif command == "G":
            self.column = number - 1
        elif command == "H":
            self.row = self.column = 0
        elif command == "K":
            # From here to the end, or all of the line.
            del self._line()[0 if arguments == "2" else self.column :]
        elif command == "J":
            del self._line()[self.column :]
            del self.lines[self.row + 1 :]

    def _line(self) -> list[tuple[str, str]]:
        while len(self.lines) <= self.row:
            self.lines.append([])
        return self.lines[self.row]
