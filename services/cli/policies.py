"""`hutong policy`, for the policies of all who own records here.

The commands are the kit's, which knows no room; here they learn where each owner's policy lies.
"""

from services.cli.rooms import policies
from services.kit.policy import commands

app = commands.app

commands.default_policies = policies
