// Back to an older version.
"use strict";

document.getElementById("rollback")?.addEventListener("click", async (event) => {
  const button = event.currentTarget;
  const { site, revision, newest } = button.dataset;
  if (!(await av.ask(av.t("rollback.ask", revision)))) return;
  button.disabled = true;
  const answer = await av.api("POST", `/admin/sites/${site}/versions/${revision}/rollback`, { expected_revision: Number(newest) });
  button.disabled = false;
  if (answer.status === 200) location.href = `/sites/${site}/versions/${answer.body.revision}`;
  else av.say(answer.status === 412 ? av.t("lost") : answer.body.error, true);
});
