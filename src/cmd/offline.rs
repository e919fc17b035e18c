//! A sliver that is changed while it is mounted nowhere.

use crate::alive::{Views, refuse_alive};
use crate::backend::features::Features;
use crate::backend::probe;
use crate::backend::store::{Ground, take_down};
use crate::catalog::base::Base;
use crate::catalog::lock::Lock;
use crate::catalog::{Root, Sliver};
use crate::error::{Error, Result};
use crate::kind::Kind;
use crate::layer::{self, Format, Scratch};
use crate::lxc::Sockets;
use crate::mount::plan::Step;
use crate::mount::{exec, private, seed};
use crate::name::Name;
use crate::quota::project::Room;
use crate::quota::{image, zfs};
use crate::stay::Below;
use crate::sys::child::Answer;
use crate::tree;
use crate::view;

/// Refuses a sliver whose container runs, or whose store is alive anywhere. An image that a crash left mounted would be in the way of
/// who mounts it for himself: it is unmounted.
pub fn refuse(root: &Root, name: &Name, backend: Option<Kind>) -> Result<()> {
    if Sockets::read()?.running(root, name) {
        return Err(Error::in_use(format_args!("the container `{name}` is running"))
            .way_out(format_args!("stop it first: lxc-stop -P {} -n {name}", root.path().display())));
    }
    if let Some(backend) = backend {
        // A kernel that no longer offers the backend cannot hold a view of it either, but for what mountinfo shows.
        let features = probe::features(root, backend).unwrap_or_default();
        refuse_alive(root, name, backend, features, &Views::settled(root, name)?)?;
    }
    image::release(root.store(name))
}

/// The same of a sliver whose store is read.
pub fn refuse_to_read(root: &Root, sliver: &Sliver) -> Result<()> {
    refuse(root, &sliver.name, Some(sliver.backend))?;
    view::free_seed(root, sliver.backend, &sliver.base)?;
    zfs::refuse_unmounted(root.store(&sliver.name))
}

/// A sliver that nobody can mount while this lasts.
pub struct Held {
    // Goes before the lock.
    _room: Option<Room>,
    _lock: Lock,
    /// Its record.
    pub sliver: &'static Sliver,
}

impl Held {
    /// Holds a sliver, whose store may be an image.
    pub fn take(root: &Root, name: &Name) -> Result<Self> {
        let lock = root.lock_sliver(name)?;
        let sliver = Sliver::load(root, name)?;
        refuse(root, name, Some(sliver.backend))?;
        Ok(Self { _room: Room::make(root, sliver), _lock: lock, sliver })
    }
}

/// Mounts a store that grew from a seed where only the work sees it, in the folder that other whole trees have; what a command that
/// was cut began in it is ended. The sliver's lock is held.
pub fn grown(root: &Root, sliver: &Sliver, work: &mut dyn FnMut() -> Answer) -> Answer {
    let base = Base::load(root, &sliver.base)?;
    view::free_seed(root, sliver.backend, &base.name)?;
    let stored = root.store(&sliver.name);
    let ground = Ground { root, base, kind: sliver.backend, features: Features::default(), limit: None };
    private::run(stored, &mut || {
        let mut steps = Vec::new();
        ground.hang(stored, None, &mut steps);
        steps.push(Step::Settle(stored, Format::of(sliver.backend)));
        exec::run(&steps)?;
        let done = work().map_err(|err| seed::torn(err, stored.below(seed::STORE)));
        steps.clear();
        take_down(stored, &mut steps);
        let hidden = exec::run(&steps);
        done.and_then(|done| hidden.map(|()| done))
    })
}

/// Ends what a command that was cut began in the store of a sliver that is mounted nowhere. Its lock is held.
pub fn settle(root: &Root, sliver: &Sliver) -> Result<()> {
    // What lies in an image is settled when that is mounted.
    if sliver.has_image() {
        return Ok(());
    }
    let folder = image::content(root.store(&sliver.name));
    if !sliver.backend.grows_image() {
        return layer::settle(folder, Format::of(sliver.backend));
    }
    // Where one that only read it was mounted. It is empty, or not there.
    let _gone = std::fs::remove_dir(folder.below("tree"));
    // Its store is mounted for it, where there is something.
    if Scratch::beside(tree::open(folder)?).left().is_empty() {
        return Ok(());
    }
    grown(root, sliver, &mut || Ok(&[])).map(drop)
}
