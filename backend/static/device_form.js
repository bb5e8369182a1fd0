// A new device, or a device's settings. Only what somebody changed is sent, as
// a merge patch: what the form does not know, and numbers that JavaScript
// cannot hold, stay as they are stored.
"use strict";

(() => {
  const form = document.getElementById("device-form");
  const fields = form.elements;
  const id = form.dataset.id;
  const zone = document.getElementById("schedule-zone");
  const alwaysOn = document.getElementById("always-on");
  const alertAfter = document.getElementById("alert-after");
  let device = { driver_config: {}, expectations: {} };
  let etag = null;
  // The rules as they are stored, until somebody changes the grid.
  let touched = false;

  const grid = new WeekGrid(document.getElementById("week"), () => { touched = true; tell(); });

  function rules() {
    return touched ? weekRules.fromMinutes(grid.on) : device.expectations?.schedule?.rules ?? [];
  }

  function tell() {
    const text = rules().map((rule) => `${rule.days.map((d) => av.t(`day.${d}`)).join(", ")} ${rule.start}–${rule.end}`).join(" · ");
    document.getElementById("week-text").textContent = text || av.t("week.empty");
  }

  function driverChanged() {
    for (const set of form.querySelectorAll("[data-driver]")) set.hidden = set.dataset.driver !== fields.driver.value;
  }

  const version = form.querySelector('[data-driver="snmp"] [data-config="version"]');

  /** Community or user, as the version of SNMP has it. */
  function versionChanged() {
    const chosen = version.value.trim().toLowerCase().replace(/^v/, "") || "2c";
    for (const part of form.querySelectorAll("[data-versions]")) part.hidden = !part.dataset.versions.split(" ").includes(chosen);
  }

  /** What stands at "v3.user" in a section. */
  function at(section, path) {
    return path.split(".").reduce((part, key) => part?.[key], section);
  }

  function scheduleChanged() {
    form.querySelectorAll(".when-scheduled").forEach((part) => { part.hidden = alwaysOn.checked; });
  }

  function fill() {
    for (const name of ["name", "ip", "type", "building", "floor", "room"]) fields[name].value = device[name] ?? "";
    const driver = device.driver ?? "ping";
    // A driver that this page does not know stays what it is.
    if (![...fields.driver.options].some((option) => option.value === driver)) fields.driver.add(new Option(driver, driver));
    fields.driver.value = driver;
    fields.alert_severity.value = device.alert_severity ?? "critical";
    for (const set of form.querySelectorAll("[data-driver]")) {
      const section = device.driver_config?.[set.dataset.driver] ?? {};
      for (const input of set.querySelectorAll("[data-config]")) {
        const stored = at(section, input.dataset.config);
        const text = Array.isArray(stored) ? stored.join(", ") : stored === false ? "" : String(stored ?? "");
        // What this page does not offer stays what it is.
        if (input.options && ![...input.options].some((option) => option.value === text)) input.add(new Option(text, text));
        input.value = text;
        input.dataset.was = input.value;
        if ("secret" in input.dataset) input.type = "password";
        const reveal = input.parentElement.querySelector("[data-reveal]");
        if (reveal) reveal.hidden = !id || input.value === "";
      }
    }
    alwaysOn.checked = device.expectations?.always_on === true;
    alertAfter.value = device.expectations?.alert_after_s ?? "";
    zone.value = device.expectations?.schedule?.timezone ?? "";
    for (const input of [alertAfter, zone]) input.dataset.was = input.value;
    grid.set(weekRules.toMinutes(device.expectations?.schedule?.rules));
    touched = false;
    driverChanged();
    versionChanged();
    scheduleChanged();
    tell();
  }

  /** Sets a key where its input was changed; `null` takes it out of a stored device. */
  function put(object, key, input) {
    if (input.value === input.dataset.was) return;
    const text = "secret" in input.dataset ? input.value : input.value.trim();
    let value = input.type === "number" ? av.number(input) : text;
    if (text !== "" && input.dataset.kind === "boolean") value = text === "true";
    if (text !== "" && input.dataset.kind === "list") value = text.split(",").map((part) => part.trim()).filter((part) => part !== "");
    if (value !== undefined && value !== "") object[key] = value;
    else if (id) object[key] = null;
  }

  function body() {
    const driver = fields.driver.value;
    const config = {};
    const set = form.querySelector(`[data-driver="${CSS.escape(driver)}"]`);
    if (set) {
      const section = {};
      for (const input of set.querySelectorAll("[data-config]")) {
        const path = input.dataset.config.split(".");
        const leaf = path.pop();
        const part = {};
        put(part, leaf, input);
        if (leaf in part) Object.assign(path.reduce((to, key) => (to[key] ??= {}), section), part);
      }
      if (Object.keys(section).length > 0) config[driver] = section;
    }
    const expectations = {};
    if (alwaysOn.checked !== (device.expectations?.always_on === true)) expectations.always_on = alwaysOn.checked;
    put(expectations, "alert_after_s", alertAfter);
    const schedule = {};
    put(schedule, "timezone", zone);
    if (touched) schedule.rules = rules();
    // A schedule needs rules; a zone alone is none.
    if (Object.keys(schedule).length > 0 && (device.expectations?.schedule || rules().length > 0)) {
      expectations.schedule = schedule;
    }
    const sent = { site_id: Number(form.dataset.site), driver, driver_config: config, expectations, alert_severity: fields.alert_severity.value };
    for (const name of ["name", "ip", "type", "building", "floor", "room"]) sent[name] = fields[name].value.trim();
    if (sent.type === "") sent.type = "other";
    return sent;
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    av.busy(form, async () => {
      av.clearProblems(form);
      const answer = id ? await av.api("PATCH", `/admin/devices/${id}`, body(), etag, "application/merge-patch+json") : await av.api("POST", "/admin/devices", body());
      if (answer.status >= 300 || answer.status === 0) { av.showProblems(form, answer); return; }
      location.href = `/devices/${answer.body.id ?? id}`;
    });
  });

  fields.driver.addEventListener("change", driverChanged);
  version.addEventListener("change", versionChanged);
  alwaysOn.addEventListener("change", scheduleChanged);
  for (const button of form.querySelectorAll("[data-week]")) {
    button.addEventListener("click", () => {
      const all = weekRules.days;
      const preset = {
        work: [{ days: all.slice(0, 5), start: "08:00", end: "18:00" }],
        all: [{ days: all, start: "00:00", end: "24:00" }],
        none: [],
      }[button.dataset.week];
      touched = true;
      grid.set(weekRules.toMinutes(preset));
      tell();
    });
  }
  for (const button of form.querySelectorAll("[data-reveal]")) {
    button.addEventListener("click", async () => {
      const input = button.parentElement.querySelector("input");
      const answer = await av.api("GET", `/admin/devices/${id}?reveal=true`);
      if (answer.status !== 200) { av.say(answer.body.error, true); return; }
      const section = input.closest("[data-driver]").dataset.driver;
      input.type = "text";
      input.value = at(answer.body.driver_config?.[section], input.dataset.config) ?? "";
      input.dataset.was = input.value;
      button.hidden = true;
      input.focus();
    });
  }

  (async () => {
    if (id) {
      const answer = await av.api("GET", `/admin/devices/${id}`);
      if (answer.status !== 200) { av.showProblems(form, answer); return; }
      ({ body: device, etag } = answer);
    }
    fill();
    form.dataset.ready = "1";
  })();
})();
