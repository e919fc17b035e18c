//! What a base's tree is kept in.

use serde::Serialize;

/// What a base's tree is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Plain files below `tree/`.
    Directory,
    /// A squashfs image.
    Squashfs,
    /// An erofs image.
    Erofs,
    /// The image of a Btrfs seed.
    Btrfs,
}

impl Form {
    /// All forms.
    pub const ALL: [Self; 4] = [Self::Directory, Self::Squashfs, Self::Erofs, Self::Btrfs];

    /// Those that are images.
    pub const IMAGES: [Self; 3] = [Self::Squashfs, Self::Erofs, Self::Btrfs];

    /// The form's name, which is also the file-system type of an image.
    pub fn name(self) -> &'static str {
        match self {
            Form::Directory => "directory",
            Form::Squashfs => "squashfs",
            Form::Erofs => "erofs",
            Form::Btrfs => "btrfs",
        }
    }

    /// The file or folder of the tree, in the base's folder.
    pub fn file(self) -> &'static str {
        match self {
            Form::Directory => "tree",
            Form::Squashfs => "image.squashfs",
            Form::Erofs => "image.erofs",
            Form::Btrfs => "image.btrfs",
        }
    }
}
