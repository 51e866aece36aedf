"""Variations of images that keep their meaning, as pure functions of a key."""

import jax

import jconv


def shifted(key: jax.Array, images: jax.Array, reach: int) -> jax.Array:
    """Each of `[batch, height, width, channels]` moved by up to `reach` pixels, zeros behind."""
    padded = jconv.pad(images, [(reach, reach)] * 2)
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * reach + 1)

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (*corner, 0), images.shape[1:])

    return jax.vmap(crop)(padded, corners)
