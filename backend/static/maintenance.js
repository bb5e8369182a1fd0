// Maintenance windows: a new one, and the early end of one.
"use strict";

(() => {
  const form = document.getElementById("window-form");

  /** A time as `datetime-local` has it: in the browser's zone, to the minute. */
  const local = (time) => new Date(time.getTime() - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
  const instant = (input) => (input.value === "" ? undefined : new Date(input.value).toISOString());

  if (form) {
    const { scope, starts_at: starts, ends_at: ends, reason } = form.elements;
    const last = (hours) => {
      const from = starts.value === "" ? new Date() : new Date(starts.value);
      ends.value = local(new Date(from.getTime() + hours * 3_600_000));
    };
    last(2);
    for (const button of form.querySelectorAll("[data-hours]")) {
      button.addEventListener("click", () => last(Number(button.dataset.hours)));
    }
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      av.busy(form, async () => {
        av.clearProblems(form);
        const body = { site_id: Number(form.dataset.site), starts_at: instant(starts), ends_at: instant(ends), reason: reason.value.trim() };
        const { device, building, floor, room } = scope.selectedOptions[0].dataset;
        if (device !== undefined) body.device_id = Number(device);
        else if (room !== undefined) Object.assign(body, { building, floor, room });
        const answer = await av.api("POST", "/admin/maintenance", body);
        if (answer.status >= 300 || answer.status === 0) av.showProblems(form, answer);
        else location.href = "/maintenance";
      });
    });
  }

  for (const button of document.querySelectorAll("[data-end]")) {
    button.addEventListener("click", async () => {
      if (!(await av.ask(button.dataset.ask))) return;
      const path = `/admin/maintenance/${button.dataset.end}`;
      const got = await av.api("GET", path);
      let answer = got;
      if (got.status === 200) {
        const { site_id, device_id, building, floor, room, starts_at, reason } = got.body;
        // The server's now, whatever this machine's clock says, which comes in whole seconds:
        // always after the start, and never still to come.
        const now = Math.max(got.date ?? Date.now(), Date.parse(starts_at) + 1);
        answer = await av.api("PUT", path, { site_id, device_id, building, floor, room, starts_at, ends_at: new Date(now).toISOString(), reason });
      }
      if (answer.status >= 200 && answer.status < 300) location.href = "/maintenance";
      else av.say(answer.body.error, true);
    });
  }
})();
