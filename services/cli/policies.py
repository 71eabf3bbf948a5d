"""`hutong policy`, for the policies of all who own records here.

The commands are the kit's, which knows no room; here they learn where each owner's policy lies, and get one more:
comparing policies by the questions in a node's log takes a zone to find the node in.
"""

from services.cli import policy_diff
from services.cli.rooms import policies
from services.kit.policy import commands

app = commands.app

commands.default_policies = policies
app.command("diff")(policy_diff.diff)
app.info.help = f"{app.info.help}  hutong policy diff customs.cedar proposed/customs.cedar --node customs\n"
