//! `av-backend import-python`: takes the data of the Python system over.
//!
//! Its database is read and never written to. What a row means here is decided
//! in `taken`: a value that the schema would refuse becomes the nearest one that
//! it takes, and is counted. What has no place here is listed. All of it is one
//! transaction: an import that is interrupted leaves nothing.

mod said;
mod taken;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use av_proto::text::one_line;
use serde_json::json;

use crate::config::hash;
use crate::store::actor::Actor;
use crate::store::audit::Deed;
use crate::store::config::{DeviceRow, Revision, SiteSnapshot};
use crate::store::python::{Python, PythonDevice, PythonError, Reading};
use crate::store::takeover::{Occupied, Table, Takeover, Taking};
use crate::store::{Connector, Store, StoreError};

use said::{Account, SiteHash};
use taken::{Alerts, History, Site, Tallies};

/// Between two signs of life.
const SIGN_EVERY: Duration = Duration::from_secs(5);
/// How many rows are taken before the time is looked at.
const LOOK_EVERY: u64 = 1000;

/// Why nothing was taken over.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The Python system's database.
    #[error("the Python system's database ({0}): {1}")]
    Python(String, PythonError),
    /// The database that it goes to.
    #[error("{1} ({0})")]
    Own(String, StoreError),
    /// That database is another program's, the Python system's own perhaps.
    #[error(
        "{0} has tables that another program made ({1}), and those of the Python system are not touched: av-backend needs a database of its own. Make one (sudo -u postgres createdb --owner av-backend av), name it in DATABASE_URL, and run this again"
    )]
    Foreign(String, String),
    /// That database has sites already, or had.
    #[error("{0} {1}")]
    Occupied(String, String),
    /// A configuration cannot be hashed, or is another one here.
    #[error("site {0:?}: {1}; nothing was taken over")]
    Site(String, String),
    /// There are no random numbers.
    #[error("no token for a site: {0}")]
    Token(String),
}

/// How an import tells of itself and gets what it needs.
pub struct Surroundings<'a> {
    /// Hears how far it is, now and then.
    pub progress: &'a mut dyn FnMut(&str),
    /// Makes a token.
    pub token: &'a mut dyn FnMut() -> Result<String, String>,
}

/// Takes everything over from one database to another; answers what to tell.
///
/// # Errors
/// [`ImportError`]. Nothing was taken over then; the schema may be there.
pub fn import<'a>(
    from: &'a Connector,
    to: &Connector,
    around: Surroundings<'a>,
) -> Result<String, ImportError> {
    let own = |error| refusal(to, error);
    check(from)?;
    Store::new(to.clone(), 1).migrate().map_err(own)?;
    let mut takeover = Takeover::open(to).map_err(own)?;
    let mut taking = begin(&mut takeover, to)?;
    let now = taking.now().map_err(own)?;
    let mut run = Run::new(from, around);
    let account = run.through(Some(now), Some((&mut taking, to)))?;
    let deed = Deed {
        action: "site.import_python",
        target: account.summary(),
        site_id: None,
        detail: json!({
            "from": from.place(), "sites": account.sites.len(), "devices": account.devices,
            "events": account.events, "alerts": account.alerts,
        }),
    };
    taking.commit(&actor(), &deed).map_err(own)?;
    Ok(account.told())
}

/// Says what [`import`] would do, and writes nothing. Without `to` it is not
/// looked whether there is room.
///
/// # Errors
/// [`ImportError`], what the import would be refused for among them.
pub fn dry_run<'a>(
    from: &'a Connector,
    to: Option<&Connector>,
    around: Surroundings<'a>,
) -> Result<String, ImportError> {
    let mut now = None;
    if let Some(to) = to {
        let own = |error| refusal(to, error);
        Store::new(to.clone(), 1).check_migrations().map_err(own)?;
        let mut takeover = Takeover::open(to).map_err(own)?;
        if takeover.is_migrated().map_err(own)? {
            now = Some(begin(&mut takeover, to)?.now().map_err(own)?);
        }
    }
    Ok(Run::new(from, around).through(now, None)?.told())
}

/// Looks whether it is the Python system's database, before anything is made
/// for what it holds.
fn check(from: &Connector) -> Result<(), ImportError> {
    let theirs = |error: PythonError| ImportError::Python(from.place(), error);
    let mut python = Python::open(from).map_err(|error| theirs(error.into()))?;
    python.read(None).map(|_| ()).map_err(theirs)
}

fn refusal(to: &Connector, error: StoreError) -> ImportError {
    match error {
        StoreError::Foreign { names, .. } => ImportError::Foreign(to.place(), names),
        error => ImportError::Own(to.place(), error),
    }
}

fn begin<'a>(takeover: &'a mut Takeover, to: &Connector) -> Result<Taking<'a>, ImportError> {
    let why = match takeover.begin().map_err(|error| refusal(to, error))? {
        Ok(taking) => return Ok(taking),
        Err(Occupied::Busy) => "has another import-python at work".to_owned(),
        Err(Occupied::Sites(count, names)) => {
            let mut shown: Vec<String> = names.iter().map(|name| one_line(name)).collect();
            if usize::try_from(count).is_ok_and(|count| count > names.len()) {
                shown.push("...".to_owned());
            }
            format!(
                "has {count} site(s) already ({}): sites and devices keep the ids of the Python system, so they are taken over once, into a database without sites. Make a new one where these are not they",
                shown.join(", ")
            )
        }
        Err(Occupied::History) => "had sites before and keeps their history: sites and devices keep the ids of the Python system, so they are taken over into a database that never had any. Make a new one".to_owned(),
    };
    Err(ImportError::Occupied(to.place(), why))
}

fn actor() -> Actor {
    Actor {
        name: "command line".to_owned(),
        origin: "import",
        ip: String::new(),
    }
}

/// One run through everything.
struct Run<'a> {
    from: &'a Connector,
    around: Surroundings<'a>,
    said_at: Instant,
}

/// Where it goes to.
type To<'a, 'b, 'c> = Option<(&'a mut Taking<'b>, &'c Connector)>;

impl<'a> Run<'a> {
    fn new(from: &'a Connector, around: Surroundings<'a>) -> Self {
        Self {
            from,
            around,
            said_at: Instant::now(),
        }
    }

    fn through(
        &mut self,
        now: Option<String>,
        mut to: To<'_, '_, '_>,
    ) -> Result<Account, ImportError> {
        let place = self.from.place();
        let theirs = |error: PythonError| ImportError::Python(place.clone(), error);
        let stored = |error: StoreError| theirs(error.into());
        let mut python = Python::open(self.from).map_err(stored)?;
        let mut reading = python.read(now).map_err(theirs)?;
        let mut tallies = Tallies::default();

        let mut failed = None;
        let mut token = || {
            (self.around.token)().unwrap_or_else(|error| {
                failed = Some(error);
                String::new()
            })
        };
        let sites = reading.sites().map_err(stored)?;
        let sites = taken::sites(sites, &mut tallies, &mut token);
        if let Some(error) = failed {
            return Err(ImportError::Token(error));
        }
        let devices = reading.devices().map_err(stored)?;
        let mut devices = taken::devices(devices, &sites, &mut tallies);
        let hashes = hashes(&sites, &devices)?;

        let history = self.events(&mut reading, &mut to, &mut tallies)?;
        let now = reading.now().to_owned();
        let mut states = 0;
        let mut state_rows = Vec::with_capacity(devices.len());
        for device in &mut devices {
            let row = taken::state(device, &history, &mut tallies);
            states += usize::from(row.is_some());
            state_rows.extend(row.filter(|_| to.is_some()));
        }
        if let Some((taking, to)) = &mut to {
            let own = |error| refusal(to, error);
            write(
                taking,
                Table::Sites,
                sites
                    .iter()
                    .zip(&hashes)
                    .map(|(site, hash)| site_row(site, hash, &devices, &history, &now)),
            )
            .map_err(own)?;
            write(
                taking,
                Table::Devices,
                devices
                    .iter()
                    .map(|device| device_row(device, history.first(device.id).unwrap_or(&now))),
            )
            .map_err(own)?;
            write(taking, Table::States, state_rows).map_err(own)?;
        }
        let alerts = self.alerts(&mut reading, &mut to, &sites, &devices, &mut tallies)?;
        if let Some((taking, to)) = &mut to {
            let own = |error| refusal(to, error);
            let highest = history.highest_device().max(alerts.highest_device());
            taking.make_warnings(&alerts.warnings).map_err(own)?;
            taking.go_on_counting(highest).map_err(own)?;
            for (site, hash) in sites.iter().zip(&hashes) {
                compare(taking, site, hash, to)?;
            }
        }
        Ok(Account {
            from: place.clone(),
            to: to.map(|(_, to)| to.place()),
            sites: sites
                .into_iter()
                .zip(hashes)
                .map(|(site, hash)| SiteHash {
                    site: site.name,
                    hash,
                    theirs: site.their_hash,
                })
                .collect(),
            devices: devices.len(),
            events: history.count,
            states,
            alerts: alerts.count,
            open_alerts: alerts.open,
            acknowledged: alerts.acknowledged,
            tallies,
            unplaced: reading.unplaced().map_err(stored)?,
        })
    }

    /// The history, a batch in memory at a time.
    fn events(
        &mut self,
        reading: &mut Reading<'_>,
        to: &mut To<'_, '_, '_>,
        tallies: &mut Tallies,
    ) -> Result<History, ImportError> {
        let place = self.from.place();
        let theirs = |error: StoreError| ImportError::Python(place.clone(), error.into());
        let mut history = History::default();
        let first = reading.first_event().map_err(theirs)?;
        let own = to.as_ref().map(|(_, to)| *to);
        let ours = |error: StoreError| match own {
            Some(to) => refusal(to, error),
            None => theirs(error),
        };
        let mut rows = match to {
            Some((taking, _)) => {
                if let Some(first) = &first {
                    taking.make_months(first).map_err(ours)?;
                }
                Some(taking.write(&actor(), Table::Observations).map_err(ours)?)
            }
            None => None,
        };
        reading.each_event(theirs, |event| {
            if let Some(seen) = history.take(event, tallies) {
                if let Some(rows) = &mut rows {
                    rows.add(&seen.row()).map_err(ours)?;
                }
            }
            if history.count % LOOK_EVERY == 0 {
                self.sign(history.count, "events");
            }
            Ok(())
        })?;
        if let Some(rows) = rows {
            rows.finish().map_err(ours)?;
        }
        Ok(history)
    }

    fn alerts(
        &mut self,
        reading: &mut Reading<'_>,
        to: &mut To<'_, '_, '_>,
        sites: &[Site],
        devices: &[PythonDevice],
        tallies: &mut Tallies,
    ) -> Result<Alerts, ImportError> {
        let place = self.from.place();
        let theirs = |error: StoreError| ImportError::Python(place.clone(), error.into());
        let own = to.as_ref().map(|(_, to)| *to);
        let ours = |error: StoreError| match own {
            Some(to) => refusal(to, error),
            None => theirs(error),
        };
        let sites: HashSet<i64> = sites.iter().map(|site| site.id).collect();
        let devices: HashMap<i64, (&str, &str)> = devices
            .iter()
            .map(|device| (device.id, (device.ip.as_str(), device.name.as_str())))
            .collect();
        let now = reading.now().to_owned();
        let mut alerts = Alerts::default();
        let mut rows = match to {
            Some((taking, _)) => Some(taking.write(&actor(), Table::Alerts).map_err(ours)?),
            None => None,
        };
        reading.each_alert(theirs, |alert| {
            let row = alerts.take(alert, &sites, &devices, &now, tallies);
            if let (Some(rows), Some(row)) = (&mut rows, row) {
                rows.add(&row.each_ref().map(Option::as_deref))
                    .map_err(ours)?;
            }
            if alerts.count % LOOK_EVERY == 0 {
                self.sign(alerts.count, "alerts");
            }
            Ok(())
        })?;
        if let Some(rows) = rows {
            rows.finish().map_err(ours)?;
        }
        Ok(alerts)
    }

    fn sign(&mut self, count: u64, what: &str) {
        if self.said_at.elapsed() >= SIGN_EVERY {
            self.said_at = Instant::now();
            (self.around.progress)(&format!("{count} {what} so far"));
        }
    }
}

fn write<const N: usize>(
    taking: &mut Taking<'_>,
    table: Table,
    values: impl IntoIterator<Item = [Option<String>; N]>,
) -> Result<(), StoreError> {
    let mut rows = taking.write(&actor(), table)?;
    for row in values {
        rows.add(&row.each_ref().map(Option::as_deref))?;
    }
    rows.finish().map(|_| ())
}

/// The columns of [`Table::Sites`]. A site is as old as what is known of it:
/// its days are counted from then on.
fn site_row(
    site: &Site,
    hash: &str,
    devices: &[PythonDevice],
    history: &History,
    now: &str,
) -> [Option<String>; 10] {
    let same = site.their_hash.as_deref() == Some(hash);
    let changed_at = site.their_hash_at.as_deref().filter(|_| same);
    let since = devices
        .iter()
        .filter(|device| device.site_id == site.id)
        .filter_map(|device| history.first(device.id))
        // Of one form and zone, they compare as texts.
        .min();
    [
        Some(site.id.to_string()),
        Some(site.name.clone()),
        Some(site.digest.as_text().to_owned()),
        Some(site.timezone.clone()),
        Some(site.doubt_after_days.to_string()),
        Some(site.ok_interval_s.to_string()),
        Some(site.ko_interval_s.to_string()),
        Some(hash.to_owned()),
        Some(changed_at.unwrap_or(now).to_owned()),
        Some(since.unwrap_or(now).to_owned()),
    ]
}

/// The columns of [`Table::Devices`].
fn device_row(device: &PythonDevice, since: &str) -> [Option<String>; 12] {
    let text = |text: &str| Some(text.to_owned());
    [
        Some(device.id.to_string()),
        Some(device.site_id.to_string()),
        text(&device.name),
        text(&device.ip),
        text(&device.device_type),
        text(&device.driver),
        device.building.clone(),
        device.floor.clone(),
        device.room.clone(),
        device.driver_config.clone(),
        device.expectations.clone(),
        text(since),
    ]
}

/// The hash of each site's configuration, as the contract has it, from the rows
/// that are taken.
fn hashes(sites: &[Site], devices: &[PythonDevice]) -> Result<Vec<String>, ImportError> {
    let mut of_site: HashMap<i64, Vec<&PythonDevice>> = HashMap::new();
    for device in devices {
        of_site.entry(device.site_id).or_default().push(device);
    }
    sites
        .iter()
        .map(|site| {
            let mut devices = of_site.remove(&site.id).unwrap_or_default();
            devices.sort_by(|a, b| a.ip.cmp(&b.ip));
            let json = |text: &Option<String>| text.clone().filter(|text| text != "null");
            let snapshot = SiteSnapshot {
                revision: Revision {
                    site_id: site.id,
                    number: 0,
                },
                name: site.name.clone(),
                timezone: site.timezone.clone(),
                doubt_after_days: site.doubt_after_days,
                ok_interval_s: site.ok_interval_s,
                ko_interval_s: site.ko_interval_s,
                stored_version: None,
                devices: devices
                    .into_iter()
                    .map(|device| DeviceRow {
                        ip: device.ip.clone(),
                        name: device.name.clone(),
                        building: device.building.clone(),
                        floor: device.floor.clone(),
                        room: device.room.clone(),
                        device_type: device.device_type.clone(),
                        driver: device.driver.clone(),
                        driver_config: json(&device.driver_config),
                        expectations: json(&device.expectations),
                    })
                    .collect(),
            };
            hash(&snapshot)
                .map(|hash| hash.to_string())
                .map_err(|error| {
                    let why = format!("a device's driver_config or expectations {error}");
                    ImportError::Site(site.name.clone(), why)
                })
        })
        .collect()
}

/// Holds what arrived against what was sent.
fn compare(
    taking: &mut Taking<'_>,
    site: &Site,
    sent: &str,
    to: &Connector,
) -> Result<(), ImportError> {
    let snapshot = taking
        .snapshot(site.id)
        .map_err(|error| refusal(to, error))?;
    let arrived = snapshot
        .and_then(|snapshot| hash(&snapshot).ok())
        .map(|hash| hash.to_string());
    match arrived {
        Some(arrived) if arrived == sent => Ok(()),
        arrived => Err(ImportError::Site(
            site.name.clone(),
            format!(
                "its configuration hashes to {} here instead of {sent}",
                arrived.as_deref().unwrap_or("nothing")
            ),
        )),
    }
}
