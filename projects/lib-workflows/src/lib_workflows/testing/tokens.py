"""Tokens for runs that act for their starters, where no AuthService is there to give them."""

from collections.abc import Mapping

from lib_workflows.authoring.delegation import TokenRequest
from lib_workflows.errors import DelegationRefused


class GivenTokens:
    """A source of tokens for tests: `environment(url, [report], tokens=GivenTokens({"https://orders.example": "…"}))`.

    `asked` says what steps asked for, in order. After `withdraw()` nothing is given any more.
    """

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self.asked: list[TokenRequest] = []
        self._tokens = tokens  # by resource
        self._is_withdrawn = False

    async def __call__(self, wanted: TokenRequest) -> str:
        """Give the token for a resource, to whatever run asks."""
        self.asked.append(wanted)
        if self._is_withdrawn:
            raise DelegationRefused("withdrawn", f"what run {wanted.run_id} may do for its starter was withdrawn")
        if wanted.resource not in self._tokens:
            raise DelegationRefused(
                "none", f"GivenTokens must have a token for {wanted.resource}, got none; give it one"
            )
        return self._tokens[wanted.resource]

    def withdraw(self) -> None:
        """Refuse from now on, as if the person had taken it back."""
        self._is_withdrawn = True
