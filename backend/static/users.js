// Users: add, change the role or the password.
"use strict";

(() => {
  const form = document.getElementById("user-form");
  const dialog = document.getElementById("password");

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    av.busy(form, async () => {
      av.clearProblems(form);
      const { name, password, role } = form.elements;
      const answer = await av.api("POST", "/admin/users", { name: name.value.trim(), password: password.value, role: role.value });
      if (answer.status >= 300 || answer.status === 0) av.showProblems(form, answer);
      else location.reload();
    });
  });

  for (const select of document.querySelectorAll("[data-role]")) {
    let was = select.value;
    select.addEventListener("change", async () => {
      const answer = await av.api("PATCH", `/admin/users/${select.dataset.role}`, { role: select.value });
      if (answer.status >= 300 || answer.status === 0) {
        select.value = was;
        av.say(answer.body.error, true);
      } else {
        was = select.value;
        av.say(av.t("saved"));
      }
    });
  }

  for (const button of document.querySelectorAll("button[data-password]")) {
    button.addEventListener("click", () => {
      const inner = dialog.querySelector("form");
      inner.reset();
      av.clearProblems(inner);
      dialog.querySelector("h2").textContent = button.dataset.name;
      dialog.dataset.user = button.dataset.password;
      dialog.showModal();
      inner.elements.password.focus();
    });
  }

  dialog.querySelector("form").addEventListener("submit", (event) => {
    if (event.submitter?.value !== "yes") return;
    event.preventDefault();
    const inner = event.target;
    av.busy(inner, async () => {
      const answer = await av.api("PATCH", `/admin/users/${dialog.dataset.user}`, { password: inner.elements.password.value });
      if (answer.status >= 300 || answer.status === 0) { av.showProblems(inner, answer); return; }
      dialog.close();
      av.say(av.t("saved"));
    });
  });
})();
