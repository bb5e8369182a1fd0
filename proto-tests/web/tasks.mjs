// What a person does, in a real browser against real processes. run.sh sets
// the environment; each step throws where it does not find what it should.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { createWriteStream, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import path from "node:path";
import { chromium } from "playwright-core";

const { AV_WEB_BIN: bin, AV_WEB_DIR: dir, AV_WEB_SHOTS: shots, AV_WEB_DATABASE: database, AV_WEB_CHROMIUM: executablePath } = process.env;
const PASSWORD = "three green projectors";
const LONG = 240_000;

// -------------------------------------------------------------- processes

const running = new Map();

function start(name, program, args, env = {}) {
  const child = spawn(path.join(bin, program), args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  const log = createWriteStream(path.join(dir, `${name}.log`), { flags: "a" });
  child.text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (data) => { log.write(data); child.text += data; });
  }
  running.set(name, child);
  return child;
}

async function stop(name) {
  const child = running.get(name);
  running.delete(name);
  if (!child || child.exitCode !== null) return;
  const ended = new Promise((done) => child.once("exit", done));
  child.kill("SIGTERM");
  await ended;
}

async function until(what, condition, limit = 60_000) {
  const end = Date.now() + limit;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`still not: ${what}`);
    await new Promise((done) => setTimeout(done, 200));
  }
}

const freePort = () => new Promise((done) => {
  const server = net.createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address();
    server.close(() => done(port));
  });
});

const sql = (text) => execFileSync("psql", ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", database, "-c", text], { encoding: "utf8" }).trim();

// ---------------------------------------------------------------- browser

const problems = [];

function watch(page) {
  page.on("pageerror", (error) => problems.push(`${page.url()}: ${error}`));
  page.on("console", (message) => {
    // Answers that a step asks for on purpose.
    if (message.type() === "error" && !/status of (401|403|404|409|412|422|429)/.test(message.text())) {
      problems.push(`${page.url()}: ${message.text()}`);
    }
  });
}

let shot = 0;

/** Takes the page in both sizes, and looks whether it fits the phone. */
async function picture(page, name, at) {
  shot += 1;
  const file = (size) => path.join(shots, `${String(shot).padStart(2, "0")}-${name}-${size}.png`);
  await page.setViewportSize({ width: 390, height: 844 });
  if (at) await page.locator(at).scrollIntoViewIfNeeded();
  const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  await page.screenshot({ path: file("phone"), timeout: LONG });
  await page.setViewportSize({ width: 1280, height: 900 });
  if (at) await page.locator(at).scrollIntoViewIfNeeded();
  await page.screenshot({ path: file("desk"), timeout: LONG });
  assert(over <= 0, `${name} is ${over} pixels wider than the phone`);
}

const steps = [];
const step = (name, work) => steps.push([name, work]);

// ------------------------------------------------------------------ steps

const backendPort = await freePort();
const url = `http://127.0.0.1:${backendPort}`;
const octets = `127.${20 + Math.floor(Math.random() * 200)}.${1 + Math.floor(Math.random() * 250)}`;
const projector = { ip: `${octets}.10`, port: await freePort() };
const simulator = () => start("projector", "pjlink-sim", ["--listen", `${projector.ip}:${projector.port}`, "--password", "secret", "--lamp-hours", "1234", "--manufacturer", "EXAMPLE", "--product", "PJ-9000"]);

const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const context = await browser.newContext({ locale: "en-GB", baseURL: url, viewport: { width: 1280, height: 900 } });
const page = await context.newPage();
watch(page);
page.setDefaultTimeout(90_000);

let site;
let device;

step("the week grid's arithmetic", () => import("./week.test.mjs"));

step("the first administrator comes in by the link of the log", async () => {
  const code = await until("a set-up link", () => /\/setup\/([^\s/]+)/.exec(running.get("backend").text)?.[1]);
  await page.goto(`/setup/${code}`);
  await picture(page, "setup");
  await page.getByLabel("Name").fill("anna");
  await page.getByLabel("Password").fill("short");
  await page.locator("input[name=password]").evaluate((input) => input.removeAttribute("minlength"));
  await page.getByRole("button").click();
  await page.getByText("too short").waitFor();
  await page.getByLabel("Name").fill("anna");
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button").click();
  await page.getByText("No site yet").waitFor();
  await picture(page, "dashboard-empty");
  const answer = await page.request.get(`/setup/${code}`);
  assert.equal(answer.status(), 404, "the link works once");
});

step("log out; a wrong password; log in by keyboard", async () => {
  await page.getByRole("button", { name: "Log out" }).click();
  await page.goto("/alerts");
  await page.waitForURL(/\/login\?next=/);
  await page.getByLabel("Name").fill("anna");
  await page.getByLabel("Password").fill("wrong wrong wrong");
  await page.keyboard.press("Enter");
  await page.getByText("The name or the password is wrong.").waitFor();
  await picture(page, "login");
  await page.getByLabel("Name").fill("anna");
  await page.keyboard.press("Tab");
  await page.keyboard.type(PASSWORD);
  await page.keyboard.press("Enter");
  await page.waitForURL("**/alerts");
  await page.getByText("No open alert").waitFor();
});

step("add a site, its errors beside the fields, and its token once", async () => {
  await page.goto("/");
  await page.getByRole("link", { name: "New site" }).first().click();
  await page.getByLabel("Name").fill("Lycée Ampère");
  await page.getByLabel("Time zone").fill("Europe/Pariss");
  await page.getByLabel("Sweep every").fill("5");
  await page.getByRole("button", { name: "Save" }).click();
  await page.locator("[data-field=timezone] .field-problem").waitFor();
  assert.equal(await page.locator(".field-problem").count(), 2);
  await picture(page, "site-form-errors");
  await page.getByLabel("Time zone").fill("Europe/Paris");
  await page.getByLabel("Sweep every").fill("60");
  await page.getByLabel("In a fault every").fill("15");
  await page.getByRole("button", { name: "Save" }).click();
  await page.locator("#token:visible").waitFor();
  const config = JSON.parse(await page.locator("#token-config").textContent());
  assert.equal(config.site_name, "Lycée Ampère");
  await picture(page, "site-token");
  mkdirSync(path.join(dir, "agent"), { recursive: true });
  writeFileSync(path.join(dir, "agent", "config.json"), JSON.stringify({ ...config, timezone: "UTC", doubt_after_days: 2, reporting: {}, devices: [] }));
  await page.getByRole("link", { name: "I have copied it" }).click();
  await page.waitForURL(/\/sites\/\d+$/);
  site = Number(/\d+$/.exec(page.url())[0]);
  await page.getByText("No device yet").waitFor();
  await picture(page, "site-empty");
});

step("add a device: the form follows the driver, the week is drawn by mouse and keyboard", async () => {
  await page.goto(`/sites/${site}`);
  await page.getByRole("link", { name: "New device" }).first().click();
  await page.locator("form[data-ready]").waitFor();
  await page.getByLabel("Name").fill("Projector A");
  await page.getByLabel("IP address").fill("300.1.1.1");
  await page.getByLabel("Kind").fill("projector");
  await page.getByLabel("Building").fill("Building A");
  await page.getByLabel("Floor").fill("1");
  await page.getByLabel("Room").fill("Room 101");
  assert(await page.getByLabel("Echo requests").isVisible());
  await page.getByLabel("Driver").selectOption("pjlink");
  assert(!(await page.getByLabel("Echo requests").isVisible()));
  await page.locator("#pjlink-password").fill("secret");
  await page.locator("[data-driver=pjlink]").getByLabel("Port").fill("70000");
  // By mouse: Monday to Wednesday, 9 to 12.
  const cell = (day, hour) => page.locator("#week tbody tr").nth(day).locator("td").nth(hour);
  await cell(0, 9).scrollIntoViewIfNeeded();
  await cell(0, 9).hover();
  await page.mouse.down();
  await cell(1, 10).hover();
  await cell(2, 11).hover();
  await page.mouse.up();
  await page.getByText("Mon, Tue, Wed 09:00–12:00").waitFor();
  // By keyboard: one hour more on Wednesday, Saturday evening over midnight.
  await cell(2, 11).click();
  await page.keyboard.press("Space");
  await page.getByText("Mon, Tue, Wed 09:00–12:00").waitFor();
  for (const key of ["Shift+ArrowRight", "ArrowDown", "ArrowDown", "ArrowDown", "End", "Space", "ArrowDown", "Home", "Space"]) await page.keyboard.press(key);
  await page.getByText("Mon, Tue 09:00–12:00 · Wed 09:00–13:00 · Sat 23:00–01:00").waitFor();
  await picture(page, "device-form");
  await page.getByRole("button", { name: "Save" }).click();
  await page.locator("[data-field=ip] .field-problem").waitFor();
  await page.locator('[data-field="driver_config.pjlink.port"] .field-problem').waitFor();
  assert(await page.getByLabel("IP address").evaluate((input) => input === document.activeElement), "the first wrong field has the focus");
  await picture(page, "device-form-errors");
  await page.getByLabel("IP address").fill(projector.ip);
  await page.locator("[data-driver=pjlink]").getByLabel("Port").fill(String(projector.port));
  await page.getByRole("button", { name: "Save" }).click();
  await page.waitForURL(/\/devices\/\d+$/);
  device = Number(/\d+$/.exec(page.url())[0]);
  assert.deepEqual(JSON.parse(sql(`SELECT expectations FROM devices WHERE id = ${device}`)), {
    schedule: {
      rules: [
        { days: ["mon", "tue"], start: "09:00", end: "12:00" },
        { days: ["wed"], start: "09:00", end: "13:00" },
        { days: ["sat"], start: "23:00", end: "01:00" },
      ],
    },
  });
  await picture(page, "device-new");
});

step("edit it: the secret stays masked, and stays", async () => {
  await page.getByRole("link", { name: "Edit" }).click();
  await page.locator("form[data-ready]").waitFor();
  const secret = page.locator("#pjlink-password");
  assert.notEqual(await secret.inputValue(), "secret");
  await page.getByLabel("Always on").check();
  assert(!(await page.locator("#week").isVisible()));
  await page.getByLabel("Alert after").fill("15");
  await page.getByRole("button", { name: "Save" }).click();
  await page.waitForURL(/\/devices\/\d+$/);
  await page.getByText("always on").waitFor();
  assert.equal(sql(`SELECT driver_config#>>'{pjlink,password}' FROM devices WHERE id = ${device}`), "secret");
  await page.goto(`/devices/${device}/edit`);
  await page.locator("form[data-ready]").waitFor();
  await page.locator("[data-driver=pjlink] [data-reveal]").click();
  await until("the secret is shown", async () => (await secret.inputValue()) === "secret");
  assert.equal(sql("SELECT count(*) FROM audit WHERE action = 'device.reveal'"), "1");
});

step("the form leaves what it does not touch to the last digit", async () => {
  sql(`UPDATE devices SET driver_config = jsonb_set(driver_config, '{pjlink,timeout_s}', '2.0') || '{"other": {"serial": 12345678901234567890123, "gain": 1.0}}' WHERE id = ${device}`);
  const stored = () => sql(`SELECT driver_config::text || expectations::text FROM devices WHERE id = ${device}`);
  const before = stored();
  await page.goto(`/devices/${device}/edit`);
  await page.locator("form[data-ready]").waitFor();
  await page.getByLabel("Kind").fill("display");
  await page.getByLabel("Its alerts are").selectOption("warning");
  await page.getByRole("button", { name: "Save" }).click();
  await page.waitForURL(/\/devices\/\d+$/);
  assert.equal(sql(`SELECT device_type || ' ' || alert_severity FROM devices WHERE id = ${device}`), "display warning");
  assert.equal(stored(), before);
  await page.goto(`/devices/${device}/edit`);
  await page.locator("form[data-ready]").waitFor();
  await page.locator("[data-driver=pjlink]").getByLabel("Time-out").fill("");
  await page.getByLabel("Kind").fill("projector");
  await page.getByLabel("Its alerts are").selectOption("critical");
  await page.getByRole("button", { name: "Save" }).click();
  await page.waitForURL(/\/devices\/\d+$/);
  assert.equal(stored(), before.replace('"timeout_s": 2.0, ', "").replace(', "timeout_s": 2.0', ""));
  sql(`UPDATE devices SET driver_config = driver_config - 'other' WHERE id = ${device}`);
});

step("two people edit it: the second is told", async () => {
  await page.goto(`/devices/${device}/edit`);
  await page.locator("form[data-ready]").waitFor();
  sql(`UPDATE devices SET floor = '2' WHERE id = ${device}`);
  await page.getByLabel("Floor").fill("3");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Somebody changed this meanwhile").waitFor();
  assert.equal(sql(`SELECT floor FROM devices WHERE id = ${device}`), "2");
});

step("it arrives in a running agent, and the site's page shows it without a reload", async () => {
  await page.goto(`/sites/${site}`);
  await page.getByText("never heard from").waitFor();
  await page.evaluate(() => { window.same = true; });
  simulator();
  const agentPort = await freePort();
  start("agent", "av-agent", [], {
    AGENT_CONFIG: path.join(dir, "agent", "config.json"),
    AV_STATE_DIR: path.join(dir, "agent", "state"),
    AV_PAGE_LISTEN: `127.0.0.1:${agentPort}`,
    AV_FIRST_SYNC_S: "0",
    CONFIG_SYNC_INTERVAL_MIN: "0.0166667",
  });
  await page.locator(`#d${device}.ok`).waitFor({ timeout: LONG });
  await page.getByText("in sync").waitFor({ timeout: LONG });
  await until("the agent's own page knows it", async () => {
    try { return (await (await fetch(`http://127.0.0.1:${agentPort}/`)).text()).includes("Projector A"); } catch { return false; }
  });
  assert.equal(await page.evaluate(() => window.same), true, "the page was not loaded again");
  await picture(page, "site-live");
  await page.goto(`/devices/${device}`);
  await page.getByText("1234 h").first().waitFor();
  await picture(page, "device-ok");
});

step("a device added elsewhere comes into the open page", async () => {
  await page.goto(`/sites/${site}`);
  await page.evaluate(() => { window.same = true; });
  sql(`INSERT INTO devices (site_id, name, ip, device_type, driver, building, floor, room)
       VALUES (${site}, 'Screen <b>bold</b>', '127.0.0.1', 'display', 'ping', 'Building A', '1', 'Room 102')`);
  await page.getByText("Screen <b>bold</b>").waitFor({ timeout: LONG });
  await page.locator(".place", { hasText: "Room 102" }).waitFor();
  assert.equal(await page.evaluate(() => window.same), true, "the page was not loaded again");
  await page.getByLabel("Name, address").fill("102 screen");
  await until("the filter hides the others", async () => !(await page.locator(`#d${device}`).isVisible()));
  await page.getByLabel("Name, address").fill("nothing like this");
  await page.getByText("Nothing fits the filter.").waitFor();
});

step("break it: the open page turns red, and the alert opens", async () => {
  await page.goto(`/sites/${site}`);
  await page.evaluate(() => { window.same = true; });
  await stop("projector");
  await page.locator(`#d${device}.fault`).waitFor({ timeout: LONG });
  assert.equal(await page.evaluate(() => window.same), true, "the page was not loaded again");
  await picture(page, "site-fault");
  await page.goto("/");
  await page.locator("#live .lines a", { hasText: "Projector A" }).waitFor();
  await picture(page, "dashboard-fault");
  await page.locator("#live .lines a", { hasText: "Projector A" }).click();
  await page.waitForURL(/\/alerts#alert-\d+$/);
});

step("acknowledge and comment", async () => {
  await picture(page, "alerts-open");
  await page.getByRole("button", { name: "Acknowledge" }).click();
  await page.getByText(/Acknowledged: anna/).waitFor();
  await page.getByLabel("Comment").fill("A technician is <i>on the way</i>.");
  await page.keyboard.press("Enter");
  await page.getByText("A technician is <i>on the way</i>.").waitFor();
  assert.equal(sql("SELECT acknowledged_by FROM alerts WHERE closed_at IS NULL"), "anna");
  await picture(page, "alerts-acknowledged");
  await page.goto(`/devices/${device}`);
  await picture(page, "device-fault");
});

step("mend it: the alert closes by itself", async () => {
  simulator();
  await page.goto("/alerts");
  await page.getByText("No open alert").waitFor({ timeout: LONG });
  await page.getByRole("link", { name: "Closed" }).click();
  await page.getByText("Projector A").waitFor();
  await picture(page, "alerts-closed");
});

step("an agent that falls silent is said, and nothing stays green", async () => {
  await stop("agent");
  sql(`UPDATE site_agents SET last_report_at = now() - interval '1 day';
       UPDATE device_states SET last_seen = now() - interval '1 day', observed_at = now() - interval '1 day'`);
  await page.goto("/");
  await page.getByText("not heard from for").first().waitFor();
  await page.goto(`/sites/${site}`);
  await page.locator(`#d${device}.unknown`).waitFor();
  assert.equal(await page.locator("tr.ok").count(), 0);
  await picture(page, "site-silent");
});

step("the versions say who changed what, and take the site back", async () => {
  await page.goto(`/sites/${site}`);
  await page.getByRole("link", { name: "Versions" }).click();
  await page.getByText("newest").waitFor();
  await page.locator("tbody tr", { hasText: "anna" }).first().waitFor();
  // By hand: its author is the database's role.
  await page.locator("tbody tr", { hasText: "sql" }).first().waitFor();
  await picture(page, "versions");
  await page.goto(`/devices/${device}/edit`);
  await page.locator("form[data-ready]").waitFor();
  await page.getByLabel("Room").fill("Room 999");
  await page.locator("#pjlink-password").fill("other");
  await page.getByRole("button", { name: "Save" }).click();
  await page.waitForURL(/\/devices\/\d+$/);
  await page.goto(`/sites/${site}/versions`);
  await page.locator("tbody tr a").first().click();
  await page.getByText("Room 999").waitFor();
  assert(!(await page.content()).includes("other"), "a secret is in the page");
  await picture(page, "version");
  await page.goto(`/sites/${site}/versions`);
  await page.locator("tbody tr a").nth(1).click();
  await page.getByRole("link", { name: "Against the newest" }).click();
  await page.getByText("Room 999").waitFor();
  await picture(page, "version-since");
  await page.getByRole("button", { name: "Go back to this version" }).click();
  await page.getByRole("button", { name: "Yes, go on" }).click();
  await until("the device is as it was", () => sql(`SELECT room || ' ' || (driver_config#>>'{pjlink,password}') FROM devices WHERE id = ${device}`) === "Room 101 secret");
  await page.getByText("rollback").waitFor();
});

step("import: errors by row, a preview, and then the change", async () => {
  await page.goto(`/sites/${site}`);
  await page.getByRole("link", { name: "Import and export" }).click();
  const file = page.locator("input[type=file]");
  const csv = (text) => ({ name: "devices.csv", mimeType: "text/csv", buffer: Buffer.from(text) });
  await file.setInputFiles(csv("ip,name,driver,type\n10.9.9.1,Good,ping,display\n999,Bad,ping,display\n"));
  await page.getByRole("button", { name: "Preview" }).click();
  await page.locator("#preview tbody tr", { hasText: "not an IP address" }).waitFor();
  await picture(page, "import-errors");
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "CSV" }).click()]);
  const exported = readFileSync(await download.path(), "utf8");
  assert(exported.includes("Projector A") && !exported.includes("secret"), exported);
  await file.setInputFiles(csv(exported.replace("Projector A", "Projector Z").trimEnd() + "\n10.9.9.1,Good,,,,display,ping,{},{}\n"));
  await page.getByRole("button", { name: "Preview" }).click();
  await page.getByText("1 new, 1 changed, 0 deleted, 1 as they are").waitFor();
  await picture(page, "import-preview");
  assert.equal(sql(`SELECT count(*) FROM devices WHERE site_id = ${site}`), "2");
  await page.locator("#apply").click();
  await page.waitForURL(new RegExp(`/sites/${site}$`));
  await page.getByText("Projector Z").waitFor();
  assert.equal(sql(`SELECT driver_config#>>'{pjlink,password}' FROM devices WHERE id = ${device}`), "secret");
});

step("2,000 devices and 200 sites", async () => {
  sql(`INSERT INTO sites (name, token, timezone) SELECT 'Site ' || n, 'token-' || n, 'Europe/Paris' FROM generate_series(1, 199) n`);
  sql(`INSERT INTO devices (site_id, name, ip, device_type, driver, building, floor, room)
       SELECT s.id, 'Device ' || n, '10.0.' || n / 250 || '.' || 1 + n % 250, 'projector', 'pjlink',
              'Building ' || chr(65 + n / 500), (n / 50 % 10)::text, 'Room ' || n / 10
         FROM generate_series(0, 1999) n, sites s WHERE s.name = 'Site 1'`);
  sql(`INSERT INTO devices (site_id, name, ip, device_type, driver)
       SELECT s.id, 'Device ' || n, '10.0.0.' || n, 'display', 'ping' FROM generate_series(1, 20) n, sites s WHERE s.name ~ '^Site [0-9]+[02468]$'`);
  sql(`INSERT INTO site_agents (site_id, last_report_at, version, running_hash) SELECT id, now(), '0.1.0', 'x' FROM sites WHERE name ~ '^Site [0-9]*[012345]$'`);
  sql(`INSERT INTO device_states (device_id, status, verdict, detail, metrics, observed_at, last_seen, last_ok_at, status_since, verdict_since, recorded_at)
       SELECT d.id, CASE WHEN v = 'fault' THEN 'offline' ELSE 'online' END, v, CASE WHEN v = 'fault' THEN 'no answer on TCP port 4352' END,
              '{"ping_rtt_avg_ms": 1.5}', now(), now(), now(), now() - interval '2 hours', now() - interval '2 hours', now()
         FROM devices d JOIN sites s ON s.id = d.site_id
        CROSS JOIN LATERAL (SELECT CASE WHEN d.id % 97 = 0 THEN 'fault' WHEN d.id % 13 = 0 THEN 'expected_off' WHEN d.id % 101 = 0 THEN 'doubt' ELSE 'ok' END AS v) x
        WHERE s.name LIKE 'Site %' ON CONFLICT DO NOTHING`);
  const big = sql("SELECT id FROM sites WHERE name = 'Site 1'");
  await page.goto("/");
  await page.getByText("200 sites").waitFor();
  await picture(page, "dashboard-200");
  await page.getByLabel("Find a site").fill("site 19");
  await until("the filter hides the others", async () => (await page.locator("#sites tbody tr:visible").count()) === 12);
  const begin = Date.now();
  await page.goto(`/sites/${big}`);
  await page.locator("#devices tr[id]").nth(1999).waitFor({ state: "attached" });
  const loaded = Date.now() - begin;
  await picture(page, "site-2000");
  const filtered = await page.evaluate(() => {
    const box = document.getElementById("search");
    const begin = performance.now();
    box.value = "building c device 1234";
    box.dispatchEvent(new Event("input"));
    document.body.getBoundingClientRect();
    return performance.now() - begin;
  });
  assert.equal(await page.locator("#devices tr[id]:visible").count(), 1);
  await page.getByLabel("Name, address").fill("");
  await page.locator(".chip.fault").click();
  const faults = Number(await page.locator(".chip.fault strong").textContent());
  await until("only faults are shown", async () => (await page.locator("#devices tr[id]:visible").count()) === faults);
  await picture(page, "site-2000-faults");
  const live = await page.request.get(`/sites/${big}/live`);
  const again = await page.request.get(`/sites/${big}/live`, { headers: { "If-None-Match": live.headers().etag } });
  assert.equal(again.status(), 304);
  console.log(`   2,000 devices: page ${loaded} ms, filter ${Math.round(filtered)} ms, live ${(await live.body()).length} bytes, then 304`);
});

step("a month of history", async () => {
  sql(`INSERT INTO observations (site_id, device_id, ip, observed_at, received_at, status, verdict, detail, metrics)
       SELECT ${site}, ${device}, '${projector.ip}', t, t, CASE WHEN v = 'ok' THEN 'online' ELSE 'offline' END, v, CASE WHEN v = 'fault' THEN 'no answer on TCP port ${projector.port}' END,
              jsonb_build_object('pjlink_lamps', jsonb_build_array(jsonb_build_object('hours', 1000 + n / 3)), 'ping_rtt_avg_ms', 2 + sin(n / 7.0) + random(), 'sys_uptime', (n % 200) * 360000)
         FROM generate_series(0, 700) n, LATERAL (SELECT now() - make_interval(hours => 710 - n) AS t,
              CASE WHEN n % 71 IN (5, 6) THEN 'fault' WHEN n % 24 < 7 THEN 'expected_off' ELSE 'ok' END AS v) x
       ON CONFLICT DO NOTHING`);
  await page.goto(`/devices/${device}?days=30`);
  await page.locator(".plot").nth(2).waitFor();
  assert((await page.locator(".timeline rect").count()) > 20);
  await page.getByText("Changes").click();
  await picture(page, "device-history");
  await picture(page, "device-plots", "details table tr:nth-child(3)");
});

step("availability: of the device, and of the site by device", async () => {
  sql(`UPDATE sites SET created_at = now() - interval '40 days' WHERE id = ${site}`);
  sql(`UPDATE devices SET created_at = now() - interval '40 days' WHERE id = ${device}`);
  sql(`SELECT av_compute_day(${site}, d::date) FROM generate_series(current_date - 28, current_date - 1, interval '1 day') d`);
  const percent = sql(`SELECT floor(10000.0 * sum(ok_s) / sum(ok_s + fault_s)) / 100 FROM device_days WHERE device_id = ${device}`);
  await page.goto(`/devices/${device}`);
  await page.locator(".days").scrollIntoViewIfNeeded();
  const shown = await page.locator("li", { hasText: "30 days" }).locator("strong").textContent();
  assert.equal(Number(shown.replace(" %", "")), Number(percent));
  await page.locator("section", { has: page.locator(".days") }).getByText("Days", { exact: true }).click();
  assert.equal(await page.locator("section", { has: page.locator(".days") }).locator("tbody tr").count(), 28);
  await picture(page, "device-availability", ".days");
  await page.goto(`/sites/${site}`);
  await page.getByRole("link", { name: "Availability" }).click();
  await page.locator("#devices tr", { hasText: "Projector Z" }).getByText(shown).waitFor();
  assert.equal(await page.locator(".days rect").count(), 28);
  await picture(page, "site-availability");
  await page.getByRole("link", { name: "7 days" }).click();
  await page.waitForURL(/days=7/);
  assert((await page.locator(".days rect").count()) <= 7);
});

step("maintenance: a window for a room, seen at the device, and ended", async () => {
  await page.goto("/maintenance");
  await page.getByText("No maintenance window").waitFor();
  await picture(page, "maintenance-empty");
  await page.getByRole("link", { name: "New window" }).click();
  await page.getByLabel("Choose the site").selectOption({ label: "Lycée Ampère" });
  await picture(page, "maintenance-site");
  await page.getByRole("button", { name: "Next" }).click();
  const room = sql(`SELECT concat_ws('/', building, floor, room) FROM devices WHERE id = ${device}`);
  await page.getByLabel("What").selectOption({ label: room.replaceAll("/", " · ") });
  await page.getByRole("textbox", { name: "To" }).fill("2020-01-01T10:00");
  await page.getByLabel("Why").fill("New lamps");
  await page.getByRole("button", { name: "Save" }).click();
  await page.locator("[data-field=ends_at] .field-problem").waitFor();
  await picture(page, "maintenance-form-errors");
  await page.getByRole("button", { name: "4 h", exact: true }).click();
  await page.getByRole("button", { name: "Save" }).click();
  await page.waitForURL("**/maintenance");
  await page.locator("tr", { hasText: "Room 101" }).getByText("New lamps").waitFor();
  assert.equal(sql("SELECT concat_ws('/', building, floor, room) || ' ' || round(extract(epoch FROM ends_at - now()) / 3600) FROM maintenance_windows"), `${room} 4`);
  // One of a device, later.
  await page.goto(`/devices/${device}`);
  await page.getByText("In maintenance until").waitFor();
  await picture(page, "device-maintenance");
  await page.getByRole("link", { name: "Maintenance", exact: true }).last().click();
  await page.getByRole("textbox", { name: "From" }).fill("2099-01-01T10:00");
  await page.getByRole("button", { name: "24 h" }).click();
  await page.getByRole("button", { name: "Save" }).click();
  await page.waitForURL("**/maintenance");
  await picture(page, "maintenance");
  assert.equal(sql(`SELECT device_id FROM maintenance_windows WHERE starts_at > now()`), String(device));
  await page.getByRole("button", { name: "Delete" }).click();
  await page.getByRole("button", { name: "Yes, go on" }).click();
  await page.getByRole("button", { name: "Delete" }).waitFor({ state: "detached" });
  assert.equal(sql("SELECT count(*) FROM maintenance_windows"), "1");
  await page.getByRole("button", { name: "End now" }).click();
  await page.getByRole("button", { name: "Yes, go on" }).click();
  await page.getByText("No maintenance window").waitFor();
  await page.goto("/maintenance?past=1");
  await page.locator("tr", { hasText: "New lamps" }).getByText("past").waitFor();
});

step("notifications: a webhook that gets a test, its key never shown again; a mail channel", async () => {
  const got = [];
  const receiver = http.createServer((request, answer) => {
    let text = "";
    request.on("data", (data) => { text += data; });
    request.on("end", () => { got.push(text); answer.end(); });
  });
  await new Promise((done) => receiver.listen(0, "127.0.0.1", done));
  try {
    await page.goto("/");
    await page.getByText("More", { exact: true }).click();
    await picture(page, "menu");
    await page.getByRole("link", { name: "Notifications" }).click();
    await page.getByText("No channel").waitFor();
    await page.getByRole("link", { name: "New channel" }).click();
    await page.getByLabel("Name").fill("Helpdesk");
    await page.getByLabel("By").selectOption("webhook");
    await page.locator("input[name=url]").fill("ftp://example.org/");
    await page.locator("input[name=secret]").fill("short");
    await page.getByRole("button", { name: "Save" }).click();
    await page.locator("[data-field=secret] .field-problem").waitFor();
    await picture(page, "channel-form-errors");
    await page.locator("input[name=url]").fill(`http://127.0.0.1:${receiver.address().port}/hidden-path`);
    await page.locator("input[name=secret]").fill("a key of many characters");
    await page.getByRole("button", { name: "Save" }).click();
    await page.waitForURL(/\/channels\/\d+$/);
    assert(!(await page.content()).includes("hidden-path"), "the URL's path is a secret");
    await page.getByRole("button", { name: "Send a test" }).click();
    await until("the test arrives", () => got.length > 0);
    await page.locator("tbody tr.ok, tbody td.ok").first().waitFor();
    await picture(page, "channel");
    await page.getByRole("link", { name: "Edit" }).click();
    assert.equal(await page.getByLabel("Key of the signature").inputValue(), "***");
    assert(!(await page.content()).includes("hidden-path"));
    await page.getByLabel("From severity").selectOption("critical");
    await picture(page, "channel-form");
    await page.getByRole("button", { name: "Save" }).click();
    await page.waitForURL(/\/channels\/\d+$/);
    assert.equal(sql("SELECT min_severity || ' ' || secret || ' ' || (url LIKE '%/hidden-path') FROM channels"), "critical a key of many characters true");
    await page.goto("/channels/new");
    await page.getByLabel("Name").fill("Technicians");
    await page.getByLabel("Mail addresses").fill("a@example.org\nb@example.org");
    await page.getByLabel("Messages are sent").uncheck();
    await page.getByLabel("Quiet from").fill("20:00");
    await page.getByLabel("Quiet to").fill("07:00");
    await page.getByRole("button", { name: "Save" }).click();
    await page.waitForURL(/\/channels\/\d+$/);
    assert.equal(sql("SELECT recipients FROM channels WHERE kind = 'mail'"), "{a@example.org,b@example.org}");
    await page.goto("/channels");
    await picture(page, "channels");
    await page.getByRole("link", { name: "Technicians" }).click();
    await page.getByRole("link", { name: "Edit" }).click();
    await page.getByRole("button", { name: "Delete the channel" }).click();
    await page.getByRole("button", { name: "Yes, go on" }).click();
    await page.waitForURL("**/channels");
    await page.getByRole("link", { name: "Helpdesk" }).waitFor();
    assert.equal(sql("SELECT count(*) FROM channels"), "1");
  } finally {
    receiver.close();
    receiver.closeAllConnections();
  }
});

step("the audit log: who did what, filtered and paged", async () => {
  await page.goto("/audit");
  await page.locator("tr", { hasText: "channel.delete" }).getByText("anna").waitFor();
  await picture(page, "audit");
  await page.getByLabel("Who, what").fill("DEVICE.reveal");
  await page.getByRole("button", { name: "Filter" }).click();
  await page.waitForURL(/q=DEVICE.reveal/);
  assert.equal(await page.locator("tbody tr").count(), 1);
  sql("INSERT INTO audit (actor, origin, ip, action, target, detail) SELECT 'robot', 'api', '10.0.0.1', 'site.update', 'site ' || n, '{}' FROM generate_series(1, 60) n");
  await page.goto("/audit?q=robot");
  assert.equal(await page.locator("tbody tr").count(), 50);
  await page.getByRole("link", { name: "Older" }).click();
  await page.waitForURL(/before=/);
  assert.equal(await page.locator("tbody tr").count(), 10);
  sql("DELETE FROM audit WHERE actor = 'robot'");
});

step("equipment found: one is accepted, one dismissed, in either language", async () => {
  const { site_token: token } = JSON.parse(readFileSync(path.join(dir, "agent", "config.json"), "utf8"));
  const found = [
    { ip: "10.7.0.1", vendor: "APC", model: "AP8853", name: "APC AP8853", type: "pdu", driver: "snmp", driver_config: { snmp: { profile: "pdu_apc" } }, evidence: ["answers ping in 0.4 ms", "SNMP sysObjectID: 1.3.6.1.4.1.318.1.3.4.6"] },
    { ip: "10.7.0.2", vendor: "Epson", model: "EB-<b>L1</b>", name: "Beamer", type: "projector", driver: "pjlink", evidence: ["answers the PJLink search (class 2)", "PJLink: wants a password"] },
    { ip: "10.7.0.3", mac: "02:00:00:00:00:03", evidence: ["MAC 02:00:00:00:00:03: given locally"] },
  ];
  const suggest = async () => {
    const site_name = sql(`SELECT name FROM sites WHERE id = ${site}`);
    const answer = await fetch(`${url}/suggestions`, { method: "POST", headers: { "Content-Type": "application/json", "X-Site-Token": token }, body: JSON.stringify({ site_name, found }) });
    assert.equal(answer.status, 200, await answer.text());
  };
  await suggest();
  await page.goto(`/sites/${site}`);
  await page.getByRole("link", { name: "Equipment found" }).click();
  const article = (where, ip) => where.locator("article", { hasText: ip });
  await article(page, "10.7.0.2").getByRole("heading", { name: "Epson EB-<b>L1</b>" }).waitFor();
  await picture(page, "suggestions");
  // What no driver is known for is added by hand, not from here.
  assert(await article(page, "10.7.0.3").getByRole("button", { name: "Watch it" }).isDisabled());
  await article(page, "10.7.0.1").getByLabel("Name").fill("Power strip");
  await article(page, "10.7.0.1").getByLabel("Room").fill("Rack");
  await article(page, "10.7.0.1").getByRole("button", { name: "Watch it" }).click();
  await article(page, "10.7.0.1").waitFor({ state: "detached" });
  assert.equal(sql(`SELECT name || '|' || room || '|' || driver || '|' || (driver_config #>> '{snmp,profile}') FROM devices WHERE site_id = ${site} AND ip = '10.7.0.1'`), "Power strip|Rack|snmp|pdu_apc");
  // What is wrong with an acceptance is said, and the suggestion stays.
  await article(page, "10.7.0.2").getByLabel("Name").fill("   ");
  await article(page, "10.7.0.2").getByRole("button", { name: "Watch it" }).click();
  await page.getByText("name: is empty", { exact: true }).waitFor();
  assert.equal(await page.locator("#total").textContent(), "2");
  await picture(page, "suggestions-error");
  assert.equal(sql(`SELECT count(*) FROM devices WHERE site_id = ${site} AND ip = '10.7.0.2'`), "0");

  const french = await browser.newContext({ locale: "fr-FR", baseURL: url, viewport: { width: 1280, height: 900 }, storageState: await context.storageState() });
  const hers = await french.newPage();
  watch(hers);
  await hers.goto(`/sites/${site}/suggestions`);
  await hers.getByText("Équipements trouvés").first().waitFor();
  await picture(hers, "fr-suggestions");
  await article(hers, "10.7.0.2").getByRole("button", { name: "Écarter" }).click();
  await article(hers, "10.7.0.2").waitFor({ state: "detached" });
  // Found again as it was, it does not come back.
  await suggest();
  await hers.reload();
  assert.equal(await hers.locator("article").count(), 1);
  await hers.getByRole("link", { name: "Tous" }).click();
  await article(hers, "10.7.0.1").getByText("Accepté: anna").waitFor();
  await article(hers, "10.7.0.2").getByText("Écarté: anna").waitFor();
  await picture(hers, "fr-suggestions-all");
  await french.close();
  await page.goto(`/sites/${site}/suggestions?all=1`);
  await article(page, "10.7.0.1").getByText("Accepted: anna").waitFor();
  await article(page, "10.7.0.1").getByRole("link", { name: "APC AP8853" }).click();
  await page.waitForURL(/\/devices\/\d+$/);
  await page.getByText("Rack").first().waitFor();
});

/** A driver's fields by their labels, a wrong value of one, and what is stored. */
const DRIVERS = [
  {
    driver: "http",
    fields: { Protocol: "true", Port: "8443", Path: "/health?x=1", "Host asked for": "display.example", "Statuses that are well": "200-299, 401", "Text that must come": "all well", "Warn before the certificate": "30", "Time-out": "4.5" },
    wrong: ["Statuses that are well", "20x-299", "driver_config.http.expect_status"],
    stored: { http: { tls: true, port: 8443, path: "/health?x=1", host: "display.example", expect_status: ["200-299", "401"], body_match: "all well", expiry_warn_days: 30, timeout_s: 4.5 } },
  },
  {
    driver: "tcp",
    fields: { Port: "23", "Time-out": "3", "Text to send": "HELP\\r\\n", "regular expression": "^login[: ]" },
    wrong: ["regular expression", "(", "driver_config.tcp.banner_regex"],
    stored: { tcp: { port: 23, timeout_s: 3, send: "HELP\\r\\n", banner_regex: "^login[: ]" } },
  },
  {
    driver: "snmp",
    fields: {
      Version: "3", User: "watch", "Security level": "authPriv", "Authentication by": "SHA-256", "Authentication password": "eight chars or more", "Encryption by": "AES-128", "Encryption password": "eight others or more",
      Context: "rack", Profile: "ups", Port: "1161", "Time-out": "1.5", Retries: "2",
    },
    wrong: ["Authentication password", "short", "driver_config.snmp.v3.auth_password"],
    secret: ["Authentication password", "Encryption password"],
    stored: {
      snmp: {
        version: "3", profile: "ups", port: 1161, timeout_s: 1.5, retries: 2,
        v3: { user: "watch", level: "authPriv", auth_protocol: "SHA-256", auth_password: "eight chars or more", priv_protocol: "AES-128", priv_password: "eight others or more", context: "rack" },
      },
    },
  },
];

/** The labels that are seen in a form, in lower case. */
const labels = (page) => page.locator("#device-form label").evaluateAll((all) => all
  .filter((label) => label.checkVisibility())
  .map((label) => [...label.childNodes].filter((part) => part.nodeType === Node.TEXT_NODE).map((part) => part.textContent).join(" ").trim().toLowerCase()));

for (const { driver, fields, wrong: [wrongLabel, wrongValue, wrongField], secret = [], stored } of DRIVERS) {
  step(`a device of driver ${driver}: what is wrong is named, and what is stored comes back`, async () => {
    const field = (label) => page.locator(`[data-driver=${driver}]`).getByLabel(label);
    const enter = async (label, value) => {
      if (await field(label).evaluate((input) => input.tagName) === "SELECT") await field(label).selectOption(value);
      else await field(label).fill(value);
    };
    const ip = `10.6.0.${1 + DRIVERS.findIndex((one) => one.driver === driver)}`;
    await page.goto(`/sites/${site}/devices/new`);
    await page.locator("form[data-ready]").waitFor();
    await page.getByLabel("Name").fill(`By ${driver}`);
    await page.getByLabel("IP address").fill(ip);
    await page.getByLabel("Driver").selectOption(driver);
    for (const [label, value] of Object.entries(fields)) await enter(label, value);
    const seen = await labels(page);
    for (const one of seen) assert.equal(seen.filter((other) => other.includes(one)).length, 1, `"${one}" stands in more than one label of ${seen}`);
    await enter(wrongLabel, wrongValue);
    await page.getByRole("button", { name: "Save" }).click();
    await page.locator(`[data-field="${wrongField}"] .field-problem`).waitFor();
    assert.equal(await page.locator(".field-problem").count(), 1, "only that one is wrong");
    assert(await field(wrongLabel).evaluate((input) => input === document.activeElement), "the wrong field has the focus");
    await picture(page, `device-form-${driver}`, `[data-driver=${driver}]`);
    await enter(wrongLabel, fields[wrongLabel]);
    await page.getByRole("button", { name: "Save" }).click();
    await page.waitForURL(/\/devices\/\d+$/);
    const added = /\d+$/.exec(page.url())[0];
    const config = () => JSON.parse(sql(`SELECT driver_config FROM devices WHERE id = ${added}`));
    assert.deepEqual(config(), stored);
    await picture(page, `device-${driver}`);
    const content = await page.content();
    for (const label of secret) assert(!content.includes(fields[label]), "a secret is in the page");

    await page.goto(`/devices/${added}/edit`);
    await page.locator("form[data-ready]").waitFor();
    for (const [label, value] of Object.entries(fields)) {
      const shown = await field(label).inputValue();
      if (secret.includes(label)) assert(shown !== "" && shown !== value, `${label} is masked`);
      else assert.equal(shown, value, label);
    }
    // Saved as it is shown, it stays as it is stored, secrets included.
    await page.getByLabel("Floor").fill("2");
    await page.getByRole("button", { name: "Save" }).click();
    await page.waitForURL(/\/devices\/\d+$/);
    assert.equal(sql(`SELECT floor FROM devices WHERE id = ${added}`), "2");
    assert.deepEqual(config(), stored);
    sql(`DELETE FROM devices WHERE id = ${added}`);
  });
}

step("the device form in French: no label stands in another, whatever the driver", async () => {
  const french = await browser.newContext({ locale: "fr-FR", baseURL: url, viewport: { width: 1280, height: 900 }, storageState: await context.storageState() });
  const hers = await french.newPage();
  watch(hers);
  await hers.goto(`/sites/${site}/devices/new`);
  await hers.locator("form[data-ready]").waitFor();
  for (const driver of ["ping", "pjlink", "snmp", "tcp", "http"]) {
    await hers.getByLabel("Pilote").selectOption(driver);
    for (const version of driver === "snmp" ? ["1", "3"] : [null]) {
      if (version) await hers.getByLabel("Version").selectOption(version);
      const seen = await labels(hers);
      for (const one of seen) assert.equal(seen.filter((other) => other.includes(one)).length, 1, `"${one}" stands in more than one label of ${seen}`);
    }
    if (driver !== "ping" && driver !== "pjlink") await picture(hers, `fr-device-form-${driver}`, `[data-driver=${driver}]`);
  }
  await french.close();
});

step("users: add, a role, a password; a viewer only looks", async () => {
  await page.goto("/users");
  await page.locator("#user-form").getByLabel("Name").fill("victor");
  await page.locator("#user-form").getByLabel("Password").fill("short");
  await page.getByRole("button", { name: "Add a user" }).click();
  await page.locator("[data-field=password] .field-problem").first().waitFor();
  await page.locator("#user-form").getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Add a user" }).click();
  await page.locator("td.name", { hasText: "victor" }).waitFor();
  await picture(page, "users");
  await page.getByLabel("Role: victor").selectOption("editor");
  await page.getByText("Saved").waitFor();
  await page.getByLabel("Role: victor").selectOption("viewer");
  await until("the role is stored", () => sql("SELECT role FROM users WHERE name = 'victor'") === "viewer");
  await page.locator("tr", { hasText: "victor" }).getByRole("button", { name: "New password" }).click();
  await picture(page, "user-password");
  await page.locator("#password input").fill("another long password");
  await page.locator("#password").getByRole("button", { name: "Save" }).click();
  await until("the dialog closes", async () => !(await page.locator("#password").isVisible()));

  const other = await browser.newContext({ locale: "fr-FR", baseURL: url, colorScheme: "dark", viewport: { width: 1280, height: 900 } });
  const his = await other.newPage();
  watch(his);
  await his.goto("/login");
  await his.getByLabel("Nom").fill("victor");
  await his.getByLabel("Mot de passe").fill("another long password");
  await picture(his, "fr-login");
  await his.keyboard.press("Enter");
  await his.getByText("Agents sans nouvelles").waitFor();
  assert.equal(await his.getByRole("link", { name: "Utilisateurs" }).count(), 0);
  await picture(his, "fr-dashboard");
  await his.goto(`/sites/${site}`);
  assert.equal(await his.getByRole("link", { name: "Nouvel équipement" }).count(), 0);
  await picture(his, "fr-site");
  await his.goto(`/devices/${device}?days=7`);
  await picture(his, "fr-device");
  await his.goto("/alerts?state=closed");
  assert.equal(await his.getByRole("button", { name: "Envoyer" }).count(), 0);
  await picture(his, "fr-alerts");
  await his.goto("/channels");
  await his.getByText("Helpdesk").waitFor();
  assert.equal(await his.getByRole("link", { name: "Nouveau canal" }).count(), 0);
  await picture(his, "fr-channels");
  await his.goto("/maintenance?past=1");
  await his.getByText("New lamps").waitFor();
  assert.equal(await his.getByRole("link", { name: "Nouvelle fenêtre" }).count(), 0);
  await picture(his, "fr-maintenance");
  await his.goto(`/sites/${site}/availability`);
  await picture(his, "fr-availability");
  for (const page of ["/users", "/audit", "/channels/new", "/maintenance/new", `/devices/${device}/edit`, "/sites/new"]) {
    assert.equal((await his.goto(page)).status(), 403, page);
  }
  await picture(his, "fr-forbidden");
  assert.equal((await his.goto("/nothing")).status(), 404);
  await other.close();

  const dark = await browser.newContext({ locale: "fr-FR", baseURL: url, colorScheme: "dark", viewport: { width: 1280, height: 900 }, storageState: await context.storageState() });
  const hers = await dark.newPage();
  watch(hers);
  await hers.goto(`/devices/${device}/edit`);
  await hers.locator("form[data-ready]").waitFor();
  await hers.getByLabel("Toujours allumé").uncheck();
  await hers.getByText("Lun–ven 8–18").click();
  await hers.getByText("Lun, Mar, Mer, Jeu, Ven 08:00–18:00").waitFor();
  await picture(hers, "fr-device-form");
  await picture(hers, "fr-week", "#week-text");
  await hers.getByLabel("Adresse IP").fill("300.1.1.1");
  await hers.getByRole("button", { name: "Enregistrer" }).click();
  await hers.getByText("\"300.1.1.1\" n'est pas une adresse IP").waitFor();
  await picture(hers, "fr-device-form-errors");
  for (const [name, address] of [["maintenance-new", `/maintenance/new?site=${site}`], ["channel-form", "/channels/new"], ["audit", "/audit"], ["users", "/users"], ["versions", `/sites/${site}/versions`]]) {
    await hers.goto(address);
    await picture(hers, `fr-${name}`);
  }
  await hers.goto(`/sites/${site}/edit`);
  await until("the form is filled", async () => (await hers.getByLabel("Nom").inputValue()) !== "");
  await picture(hers, "fr-site-form");
  await dark.close();
});

step("one's own account: an API token, and a new password", async () => {
  await page.goto("/");
  await page.getByRole("link", { name: "anna" }).click();
  await page.getByLabel("What it is for").fill("nightly export");
  await page.getByRole("button", { name: "Make a token" }).click();
  const token = await until("the token is shown", async () => /^avt_\w+$/.exec(await page.locator("#token pre").textContent())?.[0]);
  const bearer = { headers: { Authorization: `Bearer ${token}` } };
  assert.equal((await fetch(`${url}/admin/me`, bearer)).status, 200);
  await page.getByRole("link", { name: "I have copied it" }).click();
  await page.locator("td", { hasText: "nightly export" }).waitFor();
  await page.getByLabel("Present password").fill("not this one");
  await page.getByLabel("New password").fill("a much longer password");
  await page.getByRole("button", { name: "Save" }).click();
  await page.locator("[data-field=old] .field-problem").waitFor();
  await picture(page, "account");
  await picture(page, "account-foot", "#token-form button");
  await page.getByLabel("Present password").fill(PASSWORD);
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Saved").waitFor();
  await page.getByRole("button", { name: "Revoke" }).click();
  await page.getByRole("button", { name: "Yes, go on" }).click();
  await page.locator("td", { hasText: "nightly export" }).waitFor({ state: "detached" });
  assert.equal((await fetch(`${url}/admin/me`, bearer)).status, 401);
});

step("delete the device and the site, each after a question", async () => {
  await page.goto(`/devices/${device}/edit`);
  await page.locator("form[data-ready]").waitFor();
  await page.getByRole("button", { name: "Delete the device" }).click();
  await picture(page, "delete-question");
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("button", { name: "Delete the device" }).click();
  await page.getByRole("button", { name: "Yes, go on" }).click();
  await page.waitForURL(new RegExp(`/sites/${site}$`));
  assert.equal(sql(`SELECT count(*) FROM devices WHERE id = ${device}`), "0");
  await page.goto(`/sites/${site}/edit`);
  await page.getByRole("button", { name: "Delete the site" }).click();
  await page.getByRole("button", { name: "Yes, go on" }).click();
  await page.waitForURL(`${url}/`);
  assert.equal(sql(`SELECT count(*) FROM sites WHERE id = ${site}`), "0");
});

step("pages may load nothing but this server's own files", async () => {
  const answer = await page.request.get("/");
  const policy = answer.headers()["content-security-policy"];
  for (const part of ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]) {
    assert(policy.includes(part), `${part} is not in ${policy}`);
  }
});

// -------------------------------------------------------------------- run

let failed = null;
let passed = 0;
let doing = "the backend's start";
try {
  start("backend", "av-backend", ["serve"], { DATABASE_URL: database, AV_LISTEN: `127.0.0.1:${backendPort}` });
  await until("the backend is healthy", async () => {
    try { return (await fetch(`${url}/health`)).ok; } catch { return false; }
  });
  for (const [name, work] of steps) {
    doing = name;
    await work();
    assert.deepEqual(problems, [], "the browser complains");
    passed += 1;
    console.log(`✓ ${name}`);
  }
} catch (error) {
  failed = error;
  console.error(`✗ ${doing}`);
  console.error(error);
  await page.screenshot({ path: path.join(shots, "failed.png") }).catch(() => {});
  console.error(`at ${page.url()}\nthe browser complained: ${problems.join("\n")}`);
  for (const name of ["backend", "agent"]) {
    try { console.error(`── ${name}\n${readFileSync(path.join(dir, `${name}.log`), "utf8").slice(-2000)}`); } catch { /* it never ran */ }
  }
} finally {
  await browser.close();
  for (const name of [...running.keys()]) await stop(name);
}
// A task needs those before it: what comes after one that fails is not tried.
console.log(`web: ${passed} passed, ${failed ? 1 : 0} failed`);
process.exit(failed ? 1 : 0);
