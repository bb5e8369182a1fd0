// One's own password and API tokens.
"use strict";

(() => {
  const password = document.getElementById("password-form");
  const token = document.getElementById("token-form");
  const refused = (answer) => answer.status >= 300 || answer.status === 0;

  password.addEventListener("submit", (event) => {
    event.preventDefault();
    av.busy(password, async () => {
      av.clearProblems(password);
      const answer = await av.api("PUT", "/admin/me/password", { old: password.elements.old.value, new: password.elements.new.value });
      if (refused(answer)) { av.showProblems(password, answer); return; }
      password.reset();
      av.say(av.t("saved"));
    });
  });

  token.addEventListener("submit", (event) => {
    event.preventDefault();
    av.busy(token, async () => {
      av.clearProblems(token);
      const body = { name: token.elements.name.value.trim() };
      const days = av.number(token.elements.days);
      if (days !== undefined) body.expires_in_days = days;
      const answer = await av.api("POST", "/admin/tokens", body);
      if (refused(answer)) { av.showProblems(token, answer); return; }
      const box = document.getElementById("token");
      box.querySelector("pre").textContent = answer.body.token;
      box.hidden = false;
      token.hidden = true;
      box.querySelector("pre").focus();
    });
  });
})();
