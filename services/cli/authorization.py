"""`hutong authorization`: what a supervisor may look at. Each command lies in a module of `.authorizations`."""

import typer

from services.cli.authorizations import acting, requesting, showing

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Authorizations: what a supervisor may look at across agencies, and for how long.\n\n"
    "One officer [bold]requests[/bold]: a case, a purpose, a legal basis, record types and fields, subjects or a "
    "condition, rows, a time. Two others [bold]approve[/bold] what they have seen `explain`ed, one of them of an "
    "agency that owns the records. Anybody of them [bold]revokes[/bold], and every node stops within a second. It "
    "opens nothing that the owners' policies do not permit.\n\n"
    "\b\nExamples:\n"
    "  hutong authorization request --as supervision/aml --officer 7731 --purpose P-AML --basis CN-AML \\\n"
    "      --case STR-2026-7 --subject cn.uscc:… --select customs.Declaration:declaration_no,total_value_cny\n"
    "  hutong authorization explain ID --as customs/release\n"
    "  hutong authorization approve ID --as customs/release --officer 42 --digest …\n"
    "  hutong query --authorization ID --as supervision/aml --officer 7731 …\n"
    "  hutong authorization revoke ID --as customs/release --officer 42 --reason CASE_CLOSED\n",
)

app.command("request")(requesting.request)
app.command("approve")(acting.approve)
app.command("reject")(acting.reject)
app.command("revoke")(acting.revoke)
app.command("review")(acting.review)
app.command("use")(acting.use)
app.command("explain")(showing.explain)
app.command("show")(showing.show)
app.command("list")(showing.list_)
