//! The option dialects of the union file systems: the only place that spells them.

use super::features::Features;
use crate::error::Result;
use crate::kind::Union;
use crate::mount::options::Options;

/// The layers of one view, as names that this program made: relative to LXCPATH, or below the run folder.
#[derive(Clone, Copy, Debug)]
pub struct Layers {
    /// The read-only base.
    pub lower: &'static str,
    /// The sliver's changes.
    pub upper: &'static str,
    /// The folder that overlay prepares changes in; on the upper's disk, outside the upper.
    pub work: &'static str,
}

impl Layers {
    /// The layers of a store folder (`.store/NAME`) over a base's tree.
    pub fn new(lower: &'static str, store: &str) -> Self {
        Self { lower, upper: format!("{store}/upper").leak(), work: format!("{store}/work").leak() }
    }
}

/// The option string of a view.
pub fn options(union: Union, layers: &Layers, features: Features) -> Result<Options> {
    let mut options = Options::new();
    match union {
        Union::Overlay => {
            add_layers(&mut options, layers)?;
            features.pass_off(&mut options)?;
        }
        // v22 and older take exactly these two; v23 and later want a third.
        Union::Overlayfs => {
            options.add("lowerdir", layers.lower)?;
            options.add("upperdir", layers.upper)?;
            if features.workdir {
                options.add("workdir", layers.work)?;
            }
        }
        Union::MiniFo => {
            options.add("base", layers.lower)?;
            options.add("sto", layers.upper)?;
        }
        Union::Aufs => options.add_branches(layers.upper, layers.lower)?,
    }
    Ok(options)
}

/// The layers by the names that overlay has for them, and fuse-overlayfs.
pub fn add_layers(options: &mut Options, layers: &Layers) -> Result<()> {
    options.add("lowerdir", layers.lower)?;
    options.add("upperdir", layers.upper)?;
    options.add("workdir", layers.work)
}

/// The options of a mount that never comes about: overlay answers EBUSY for an upper that is in use anywhere, and EINVAL for
/// a free one.
///
/// The upper stands as its own work folder, which is refused (EINVAL) before anything is written, but after the upper's mark
/// was looked at: since 4.13 the driver marks a folder while it serves as an upper, once for all mount namespaces and for
/// detached views, and with `index=on` it takes no marked one (fs/overlayfs/super.c; seen on 6.1 and 6.18).
pub fn in_use(lower: &str, upper: &str) -> Result<Options> {
    let mut options = Options::new();
    options.add("lowerdir", lower)?;
    options.add("upperdir", upper)?;
    options.add("workdir", upper)?;
    options.flag("index=on")?;
    Ok(options)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_dialect_to_the_letter() {
        let layers = Layers::new(".base/b/tree", ".store/a");
        let all = Features {
            redirect_dir: true,
            redirect_nofollow: true,
            metacopy: true,
            index: true,
            xino: true,
            userxattr: true,
            workdir: true,
            tells_in_use: true,
        };
        let old = Features::default();
        for (union, features, text) in [
            (
                Union::Overlay,
                all,
                "lowerdir=.base/b/tree,upperdir=.store/a/upper,workdir=.store/a/work,\
                 redirect_dir=nofollow,metacopy=off,index=off,xino=off",
            ),
            (
                Union::Overlay,
                Features { redirect_dir: true, ..old },
                "lowerdir=.base/b/tree,upperdir=.store/a/upper,workdir=.store/a/work,redirect_dir=off",
            ),
            (Union::Overlayfs, old, "lowerdir=.base/b/tree,upperdir=.store/a/upper"),
            (Union::Overlayfs, all, "lowerdir=.base/b/tree,upperdir=.store/a/upper,workdir=.store/a/work"),
            (Union::MiniFo, old, "base=.base/b/tree,sto=.store/a/upper"),
            (Union::Aufs, old, "br=.store/a/upper=rw:.base/b/tree=ro"),
        ] {
            assert_eq!(options(union, &layers, features).unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_layer_with_a_separator_is_refused() {
        for bad in ["/srv/a,b", "/srv/a:b", "/srv/a\\b", "/srv/a\nb"] {
            for union in Union::ALL {
                assert!(
                    options(union, &Layers::new(bad, ".store/a"), Features::default()).is_err(),
                    "{bad:?}"
                );
            }
        }
    }
}
