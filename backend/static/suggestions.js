// Equipment that was found: accept or dismiss.
"use strict";

(() => {
  const found = document.getElementById("found");

  function done(answer, id) {
    if (answer.status >= 300 || answer.status === 0) {
      const fields = (answer.body.fields ?? []).map(({ field, problem }) => `${field}: ${problem}`);
      av.say(fields.join(" — ") || answer.body.error, true);
      return;
    }
    document.getElementById(`suggestion-${id}`).remove();
    const total = document.getElementById("total");
    total.textContent = String(Number(total.textContent) - 1);
    if (!found.querySelector("article")) location.reload();
  }

  found.addEventListener("submit", async (event) => {
    const form = event.target.closest("[data-accept]");
    if (!form) return;
    event.preventDefault();
    const body = { name: form.elements.name.value.trim() };
    const room = form.elements.room.value.trim();
    if (room !== "") body.room = room;
    const id = form.dataset.accept;
    await av.busy(form, async () => done(await av.api("POST", `/admin/suggestions/${id}/accept`, body), id));
  });

  found.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-dismiss]");
    if (!button) return;
    button.disabled = true;
    const id = button.dataset.dismiss;
    done(await av.api("POST", `/admin/suggestions/${id}/dismiss`, {}), id);
    button.disabled = false;
  });
})();
