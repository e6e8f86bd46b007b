/* What the browser keeps: choices over visits, the source and the key in this tab alone. */

const guarded = (work) => {
  try {
    return work();
  } catch {
    return null; // storage may be forbidden, or hold what another program has written
  }
};

const shelf = (storage, name) => ({
  get: () => guarded(() => JSON.parse(storage().getItem(name))),
  set: (value) => guarded(() => storage().setItem(name, JSON.stringify(value))),
});

export const choices = shelf(() => localStorage, "peftlab-playground");
export const tab = shelf(() => sessionStorage, "peftlab-playground");

/* The same word as on the pages of comparisons, as it stands. */
export const theme = {
  get: () => guarded(() => localStorage.getItem("peftlab-theme")),
  set: (value) => guarded(() => localStorage.setItem("peftlab-theme", value)),
};
