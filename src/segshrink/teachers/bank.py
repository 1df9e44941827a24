"""A bank: teachers of one recipe that learned from different parts of the training images, as one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from segshrink.run_records import BankRecord
from segshrink.teachers.ensemble import Ensemble
from segshrink.teachers.teacher import Teacher


class Bank(Ensemble):
    """The mean of a bank's teachers; about training images that of those which have not seen them, where asked for.

    Args:
        teachers: The members, in the bank's order.
        record: Which training images each has not seen.
        out_of_fold: About a training image ask only the members that have seen nothing of its ground; all, where all
            have. Such answers go by the image's name, so they need a cache.
        name: How messages and reports call it.
    """

    def __init__(
        self, teachers: Sequence[Teacher], record: BankRecord, *, out_of_fold: bool = False, name: str = "bank"
    ) -> None:
        super().__init__(teachers, [1.0] * len(teachers))
        self.name = name
        self.out_of_fold = self.whole_scenes = out_of_fold
        self.record = record
        self._unseen = [frozenset(member.unseen) for member in record.members]

    @property
    def identity(self) -> str:
        """SHA-256 of the teachers' identities and, where it matters, of what each has not seen."""
        if not self.out_of_fold:
            return super().identity
        settings = [super().identity, self.record.model_dump(mode="json", exclude={"segshrink"})]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    def members_for(self, name: str) -> Sequence[int]:
        """Return the positions of the members that answer about the scene of that name."""
        unseen = [place for place, names in enumerate(self._unseen) if name in names]
        return unseen if self.out_of_fold and unseen else super().members_for(name)
