"""Models, chat, and the permissions of other projects to use them."""

from __future__ import annotations

import openai
from calls import UNIQUE, Calls

QUESTION = [{"role": "user", "content": "What is 2 plus 2?"}]
PERMISSIONS = "/fine_tuning/checkpoints/{0}/permissions"


class Models(Calls):
    api_url = ""
    base = ""
    """The id of the base, which holds a slash: it is `%2F` in paths."""

    async def ask_model(self, model: str, client=None):
        create = (client or self.client).chat.completions.create
        answer = await self.now(create(model=model, messages=QUESTION, max_tokens=2))
        assert answer.model == model and answer.choices[0].message.content is not None
        return answer

    async def chat(self) -> None:
        """With the run's own model, and with each of its checkpoints."""
        client, model = self.client, self.own.fine_tuned_model
        await self.ask_model(model)
        stream = await self.now(
            client.chat.completions.create(model=model, messages=QUESTION, max_tokens=2, stream=True)
        )
        assert [chunk async for chunk in stream] if self.asynchronous else list(stream)
        answer = await self.now(client.completions.create(model=model, prompt="2 plus 2 is", max_tokens=2))
        assert answer.model == model
        checkpoints = await self.all(client.fine_tuning.jobs.checkpoints.list(self.own.id, limit=1))
        assert len(checkpoints) == 2 and all(each.id.startswith("ftckpt_") for each in checkpoints)
        for each in checkpoints:
            await self.ask_model(each.fine_tuned_model_checkpoint)
        await self.refused(openai.NotFoundError, lambda: self.ask_model("nobody/has-this"))

    async def models(self) -> None:
        models, model = self.client.models, self.own.fine_tuned_model
        assert {model, self.base} <= {each.id for each in await self.all(models.list())}
        assert "/" in self.base
        for name in (model, self.base):
            found = await self.now(models.retrieve(name))
            assert found.id == name and found.object == "model" and found.owned_by and found.created is not None
        for name in ("nobody/has-this", "ft:base:org:x:aaaaaaaa"):
            await self.refused(openai.NotFoundError, lambda name=name: models.retrieve(name))

    async def delete_model(self) -> None:
        """The run's own model, at the end of the run."""
        models, model = self.client.models, self.own.fine_tuned_model
        await self.refused(openai.PermissionDeniedError, lambda: models.delete(self.base))
        deleted = await self.now(models.delete(model))
        assert deleted.deleted and deleted.id == model
        await self.refused(openai.NotFoundError, lambda: models.retrieve(model))
        await self.refused(openai.NotFoundError, lambda: models.delete(model))
        await self.refused(openai.NotFoundError, lambda: self.ask_model(model))

    async def permissions(self) -> None:
        """Another project sees nothing of this one; it may use a checkpoint while it is permitted."""
        project, checkpoint = f"other-{UNIQUE}", f"{self.own.fine_tuned_model}:ckpt-step-3"
        key = await self.send("POST", f"{self.api_url}/keys", name="other", project=project, rights=["train", "serve"])
        other = self.connect(api_key=key.secret)
        assert not await self.all(other.fine_tuning.jobs.list()) and not await self.all(other.files.list())
        for call in (
            lambda: other.models.retrieve(checkpoint),
            lambda: other.fine_tuning.jobs.cancel(self.own.id),
            lambda: other.files.content(self.own.training_file),
            lambda: other.models.delete(self.own.fine_tuned_model),
        ):
            await self.refused(openai.NotFoundError, call)
        denied = lambda: self.list_permissions(checkpoint, client=other)  # noqa: E731
        await self.refused(openai.PermissionDeniedError, denied)

        create = "fine_tuning.checkpoints.permissions.create", f"POST {PERMISSIONS}", checkpoint
        projects = [project, f"second-{UNIQUE}", f"third-{UNIQUE}"]
        given = (await self.ask(*create, project_ids=projects)).data
        assert sorted(each.project_id for each in given) == sorted(projects)
        assert [each.id for each in await self.permission_pages(checkpoint)] == [each.id for each in given[::-1]]

        async def sees() -> bool:
            return checkpoint in [model.id for model in await self.all(other.models.list())]

        await self.until(sees, "the other project sees the checkpoint")
        await self.ask_model(checkpoint, other)
        for each in given:
            assert (await self.revoke(checkpoint, each.id)).deleted
        assert not await self.permission_pages(checkpoint)

        async def blind() -> bool:
            return not await sees()

        await self.until(blind, "the other project sees it no more")
        await self.send("DELETE", f"{self.api_url}/keys/{key.id}")

        async def locked_out() -> bool:
            try:
                await self.all(other.models.list())
            except openai.AuthenticationError:
                return True
            return False

        await self.until(locked_out, "the key is revoked")

    async def list_permissions(self, checkpoint: str, client=None, **query):
        """A page. Versions before `list` have `retrieve`."""
        client = client or self.client
        method = self.find("fine_tuning.checkpoints.permissions.list", client) or self.find(
            "fine_tuning.checkpoints.permissions.retrieve", client
        )
        if method:
            return await self.now(method(checkpoint, **query))
        query = "&".join(f"{name}={value}" for name, value in query.items())
        return await self.send("GET", f"{PERMISSIONS.format(checkpoint)}?{query}", client=client)

    async def permission_pages(self, checkpoint: str) -> list:
        """All permissions, in pages of two, newest first."""
        if method := self.find("fine_tuning.checkpoints.permissions.list"):
            return await self.all(method(checkpoint, limit=2))
        found, query = [], {"limit": 2}
        while True:
            page = await self.list_permissions(checkpoint, **query)
            found += page.data
            if not page.has_more:
                return found
            query["after"] = page.last_id

    async def revoke(self, checkpoint: str, permission: str):
        if method := self.find("fine_tuning.checkpoints.permissions.delete"):
            return await self.now(method(permission, fine_tuned_model_checkpoint=checkpoint))
        return await self.send("DELETE", f"{PERMISSIONS.format(checkpoint)}/{permission}")
