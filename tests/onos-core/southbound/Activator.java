package southbound;

import java.util.Hashtable;
import org.onosproject.net.meter.MeterStore;
import org.onosproject.persistence.PersistenceService;
import org.osgi.framework.BundleActivator;
import org.osgi.framework.BundleContext;
import org.osgi.framework.Constants;

/** Gives ONOS's core the services that are published nowhere, and starts the providers. */
public class Activator implements BundleActivator {
    private Southbound southbound;

    @Override
    public void start(BundleContext context) {
        Hashtable<String, Object> first = new Hashtable<>();
        first.put(Constants.SERVICE_RANKING, 1000);
        context.registerService(MeterStore.class, new Meters(), first);
        context.registerService(PersistenceService.class, new Persistence(), first);
        southbound = new Southbound(context);
        southbound.start();
    }

    @Override
    public void stop(BundleContext context) {
        southbound.stop();
    }
}
