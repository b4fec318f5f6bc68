"""Physics that norms, losses, metrics and simulators share: pure functions.

- `cosmology`: growth and linear power spectrum;
- `lagrangian`: cloud-in-cell between particles and grids;
- `perturbations`: Gaussian fields, displacements of first and second order;
- `potentials`: Newton's potential, and what general relativity adds to it;
- `matched_spectra`: fields without what their power spectra tell, or their phases;
- `spectra`: power, cross-correlation and transfer of periodic fields;
- `bispectra`: equilateral bispectra of periodic fields;
- `modes`: transforms in blocks, and their radial bins;
- `ice`: shallow-ice velocities and the conservation of mass;
- `ice_membrane`: velocities of ice whose columns hold and push each other;
- `glacier`: glaciers in time, from mass balance and flow;
- `operators`: gradient, divergence and curl of periodic fields;
- `spacing`: cell sizes, one for all axes or one each.
"""
