//! Which containers have which images. A record that cannot be read in full still tells its image; one that
//! tells nothing stands in nobody's way.

use std::collections::BTreeSet;

use anyhow::Result;
use serde::Deserialize;

use crate::container::{ContainerId, ImageSource, handle};
use crate::engine::Engine;
use crate::image::User;
use crate::store;

/// As much of a container's config as is needed here.
#[derive(Deserialize)]
struct Sketch {
    #[serde(default)]
    name: String,
    image: ImageSource,
}

impl Engine {
    /// Every container, as far as images are concerned.
    pub(in crate::engine) fn image_users(&self) -> Result<Vec<User>> {
        let users = self.sketches()?.into_iter().map(|(id, sketch)| {
            // Without a state nobody can tell whether it runs; its layers stay in any case.
            let runs = handle::load(&self.layout, &id).is_ok_and(|record| record.status().is_live());
            User { container: id.to_string(), image: sketch.image.id, layers: sketch.image.layers, runs }
        });
        Ok(users.collect())
    }

    /// Diff ids of all layers that containers have.
    pub(in crate::engine) fn used_layers(&self) -> Result<BTreeSet<String>> {
        Ok(self.sketches()?.into_iter().flat_map(|(_, sketch)| sketch.image.layers).collect())
    }

    /// The image of each container, and the container's name.
    pub(super) fn images_of_containers(&self) -> Result<Vec<(String, String)>> {
        let pair = |(id, sketch): (ContainerId, Sketch)| {
            let name = if sketch.name.is_empty() { id.short().to_owned() } else { sketch.name };
            (sketch.image.id, name)
        };
        Ok(self.sketches()?.into_iter().map(pair).collect())
    }

    fn sketches(&self) -> Result<Vec<(ContainerId, Sketch)>> {
        let mut sketches = Vec::new();
        for id in handle::ids(&self.layout)? {
            match store::read_json::<Sketch>(&self.layout.container(&id).join("config.json")) {
                Ok(Some(sketch)) => sketches.push((id, sketch)),
                // Being made: it looks for its image when its config is written.
                Ok(None) => {}
                Err(error) => tracing::warn!("{error:#}"),
            }
        }
        Ok(sketches)
    }
}
