# ruff: noqa: SIM905  word lists are read as words
"""Names and dates of a fictional country, drawn from a seed: the same seed tells the same country."""

from __future__ import annotations

import random
from datetime import date, timedelta

COUNTRY = "Republic of Kaldova"
CUSTODIANS = ("amber-tal", "boris-venn", "clara-oss", "dario-lint", "edda-rook")
EMBASSIES = ("luxembourg", "reykjavik", "singapore")

_GIVEN = """
Ada Aino Alek Amra Ansel Arvo Bela Birgit Bruno Cara Cosmin Dagny Dalia Edvin Elin Emeric Enna Fabian Fenna Gerda
Goran Hanno Hilde Ilya Imre Irena Isak Jana Joris Kaja Kamil Karin Lauri Lena Livia Luka Mael Maris Mato Milena Nadia
Niko Oda Olav Orsolya Pavel Petra Rasmus Rhea Sander Selma Stefan Tarmo Tilde Uma Vasil Vera Yrsa Zeno
""".split()
_STEM = """
Ald Ber Bran Cor Dal Dorn Esk Fal Gar Hal Hol Ist Jar Kal Kes Lan Lor Mar Nor Oster Pel Rav Sel Tar Ulm Var Zel
""".split()
_END = "en er ev holm in ing is itz mann mets ova ovic sen ski stein strand vik".split()
_PLACE = """
berg bridge brook dale fell field ford gate grove haven hill lake march mere moor mouth port ridge stead wood
""".split()
_STREET = """
Bakery Castle Chapel Elm Ferry Garden Harbour Linden Market Mill Orchard Quarry Rowan School Station Tower
""".split()
COUNTIES = ("Northmark", "Easterlund", "Southvale", "Westreach", "Midlands", "Capital")
FIRST_DAY = date(2009, 1, 5)


class Fiction:
    """Draws the small facts of which registers are made."""

    def __init__(self, seed: int) -> None:
        # Not cryptographic on purpose: synthetic data must be the same for the same seed.
        self.draw = random.Random(seed)  # noqa: S311
        self._sentences = list[str]()
        self.parishes = sorted({a + b for a in _STEM for b in _PLACE if self.draw.random() < 0.23})

    def family(self) -> str:
        """A family name."""
        return self.draw.choice(_STEM) + self.draw.choice(_END)

    def person(self) -> str:
        """A given and a family name."""
        return f"{self.draw.choice(_GIVEN)} {self.family()}"

    def company(self) -> str:
        """The name of a company."""
        trade = self.draw.choice(
            ("Bank", "Brewery", "Consulting", "Energy", "Estates", "Foods", "Logistics", "Mills", "Software")
        )
        return f"{self.family()} {trade} {self.draw.choice(('Ltd', 'plc', 'Cooperative'))}"

    def street(self) -> str:
        """A street and a number."""
        return f"{self.draw.choice(_STREET)} Street {self.draw.randint(1, 240)}"

    def parish(self) -> int:
        """The number of a parish, from 1; a few hold most people."""
        return min(int(self.draw.expovariate(4.0 / len(self.parishes))), len(self.parishes) - 1) + 1

    def day(self, *, first: date = FIRST_DAY, days: int = 6150) -> date:
        """A working day."""
        day = first + timedelta(days=self.draw.randrange(days))
        return day - timedelta(days=max(0, day.weekday() - 4))

    def sentence(self) -> str:
        """A sentence of official prose; officials repeat themselves."""
        if len(self._sentences) < 600 or self.draw.random() < 0.05:
            words = self.draw.choices(_PROSE, k=self.draw.randint(8, 60))
            self._sentences.append(" ".join(words).capitalize() + ".")
            return self._sentences[-1]
        return self.draw.choice(self._sentences)


_PROSE = """
the minister shall adopt within thirty days of publication a regulation on fees for entries in the register and
any person whose right is affected may lodge an objection with the county court under section twelve of this act
notice is hereby given that the parcel described below is entered in favour of the owner named in the deed and
creditors are invited to submit their claims in writing to the administrator not later than two months after
the amendment enters into force on the first day of the following quarter unless parliament resolves otherwise
""".split()
