"""The public API: one module per noun under `v3/` and `brickyard/`, each declaring one table of routes.

How to serve a call. Write a request model, an answer model, a handler, and a line in the table:

    class CreateVolume(Body):                       # what stands below {"volume": ...}
        unknown_refused_from = 53                   # older versions let unknown keys pass
        size: Gib
        name: Name | None = None
        group_id: Annotated[Uuid | None, Since(13)] = None

    class VolumeAnswer(Answer):                     # extra keys are an error; Since/Until cut by version
        id: str
        created_at: Time
        group_id: Annotated[str | None, Since(13)] = None

    async def create(call: Call) -> dict[str, Any]:
        wanted = call.valid(CreateVolume)           # typed, checked
        engine = call.services.get(Engine)          # collaborators by their class
        row = await call.services.db.write(lambda conn: volumes.insert(conn, ...))
        return view(row, call)                      # the inner dict; the framework wraps, checks, cuts, encodes

    def volumes() -> Resource:
        return Resource("volumes", "Volumes.", (
            post("/volumes", create, "volume:create", "Create a volume.", body=CreateVolume, body_key="volume",
                 answer=VolumeAnswer, answer_key="volume", status=202),
            action("/volumes/{volume_id}/action", "os-extend", extend, "volume:extend", "Extend.", body=Extend),
        ))

Each path is served with and without project id; a parameter of the path is in `call.params`. A handler returns the
body (a dict with all fields of its model; datetimes are fine), None (no body), a `Reply` (other status, headers) or an
aiohttp response (streams; routes with `streams=True` read `call.request.content` themselves). `call.version` is the N
of 3.N. It raises errors below `agent.base.errors`; their status, sentence and hint make the fault body. The policy of
a route is checked with the caller's own project before the body; `call.require(rule, row)` and `call.may(rule, row)`
decide on a row (`project_id`, `user_id`). Rules are named in `coordinator.identity.rules`. Look rows up within
`call.context.project_id` unless `call.context.is_admin`, so that foreign ones are 404. Lists: `paging.py`.
Register the resource in `resources.py`.
"""
