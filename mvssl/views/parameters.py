"""The random parameters of all views of a batch, drawn together.

in   the positions of the samples, a seed, and the views
out  `DrawnParameters`; row i depends on position i alone

A loader's worker runs this. So the object holds only the views that can be drawn ahead, and geometries they repeat.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from mvssl.data.drawn import DrawnParameters
from mvssl.random import Draws
from mvssl.views.base import DrawnView, Geometry, View


def is_drawn_ahead(view: View) -> bool:
    """Return whether the parameters of a view can be drawn ahead: it is called as `DrawnView` calls it."""
    return isinstance(view, DrawnView) and type(view).__call__ is DrawnView.__call__


@dataclass(frozen=True)
class ParameterDraw:
    """Draws the parameters of `views`, by their drawn names.

    `leaders` names for a view the one whose placement it repeats, and `geometries` has that one's geometry.
    """

    views: Mapping[str, DrawnView]
    leaders: Mapping[str, str]
    geometries: Mapping[str, Geometry]

    def __call__(self, position: Tensor, seed: int) -> DrawnParameters:
        """Return what is drawn for the samples at `position` (int64 [n], on the CPU)."""
        draws = Draws(seed, position, scope="view")
        placements = {name: geometry.draw(draws.within(name)) for name, geometry in self.geometries.items()}
        parameters = {
            name: view.draw(draws.within(name), placements.get(self.leaders.get(name, name)))
            for name, view in self.views.items()
        }
        return DrawnParameters.pack(seed, position, parameters)
