// A code with which a new agent enrols, and the command for its machine.
"use strict";

(() => {
  const button = document.getElementById("enrol");
  const box = document.getElementById("enrolment");
  const command = document.getElementById("enrol-command");
  const what = document.getElementById("enrol-what");

  button.addEventListener("click", async () => {
    button.disabled = true;
    const answer = await av.api("POST", `/admin/sites/${button.dataset.site}/enrolment`, {});
    button.disabled = false;
    if (answer.status !== 201) { av.say(answer.body.error, true); return; }
    const until = new Date(answer.body.valid_until).toLocaleTimeString(document.documentElement.lang, { hour: "2-digit", minute: "2-digit" });
    document.getElementById("enrol-code").textContent = answer.body.code;
    what.textContent = what.dataset.text.replace("{}", until);
    command.textContent = `sudo av-agent enroll ${location.origin} ${answer.body.code}`;
    box.showModal();
    command.focus();
  });

  // What was shown is not left in the page.
  box.addEventListener("close", () => {
    document.getElementById("enrol-code").textContent = "";
    command.textContent = "";
  });

  document.getElementById("enrol-copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command.textContent);
      av.say(av.t("copied"));
    } catch {
      // Without TLS a browser has no clipboard: mark it for Ctrl-C.
      getSelection().selectAllChildren(command);
    }
  });
})();
